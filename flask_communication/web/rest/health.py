"""``health`` and ``metrics``: for load balancers, monitoring and Prometheus."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask.typing import ResponseReturnValue

from ...configs.state import current
from ...delivery.monitor import health as monitor
from ..access import is_admitted
from ..endpoints import Endpoint
from ..envelope import BadRequest


@Endpoint("GET", "/health", None, answer={"type": "object"}, errors=(503,))
def health() -> ResponseReturnValue:
    """Return whether messages are being sent; with `health.read`, the details too.

    503: the database is away or not upgraded, or work has been due for two minutes and no worker
    attends.
    """
    may_see = is_admitted("health.read")
    found = monitor.read(current(), counts=may_see)
    well = all(part["ok"] for part in found.values())
    answer: dict[str, Any] = {"success": well}
    if not well:
        answer["msg"] = "not well; who may see more is told what is wrong"
    if may_see:
        answer["data"] = found
    return answer, 200 if well else 503


@Endpoint("GET", "/metrics", "metrics.read", produces="text/plain", errors=(501,))
def metrics() -> Response:
    """Return the metrics in the text format of Prometheus."""
    from ...delivery.monitor import metrics as exposition

    try:
        text = exposition.expose(current())
    except ImportError:
        raise BadRequest(
            501, "install the extra: pip install flask-communication[metrics]"
        ) from None
    return Response(text, content_type=exposition.CONTENT_TYPE)
