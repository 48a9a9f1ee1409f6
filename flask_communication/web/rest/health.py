"""``health`` and ``metrics``: is it up, is work piling up, who attends, what is paused."""

from __future__ import annotations

from typing import Any

from flask import Response

from ...configs.state import current
from ...delivery.monitor import health as vitals
from ..access import is_admitted, needs
from ..envelope import BadRequest


def health() -> Any:
    """Tell whether messages are being attended to; details only for who may see them.

    503: the database is away or not upgraded, or work has been due for two minutes and nobody
    attends.
    """
    may_see = is_admitted("health.read")
    found = vitals.read(current(), counts=may_see)
    well = all(part["ok"] for part in found.values())
    answer: dict[str, Any] = {"success": well}
    if not well:
        answer["msg"] = "not well; who may see more is told what is wrong"
    if may_see:
        answer["data"] = found
    return answer, 200 if well else 503


@needs("metrics.read")
def metrics() -> Any:
    """Answer the metrics in the text form of Prometheus."""
    from ...delivery.monitor import metrics as counted

    try:
        return Response(counted.expose(current()), content_type=counted.CONTENT_TYPE)
    except ImportError:
        raise BadRequest(
            501, "install the extra: pip install flask-communication[metrics]"
        ) from None
