"""``health`` and ``metrics``: is it up, is work piling up, who attends, what is paused."""

from __future__ import annotations

from typing import Any

from flask import Response
from sqlalchemy import text

from .. import circuits, heartbeat, history
from ..database import speech_of
from ..state import State, current
from .access import is_admitted, needs
from .envelope import BadRequest

# Work that has waited so long while nobody attends is not going to be done.
TOO_LATE = 120.0


def health() -> Any:
    """Tell whether messages are being attended to; details only for who may see them.

    503: the database is away or not upgraded, or work has been due for two minutes and nobody attends.
    """
    state = current()
    found = {"database": _database(state), "bell": _bell(state), "workers": {"ok": True}}
    if found["database"]["ok"]:
        found |= _attended(state, found["database"]["oldest_due_seconds"])
    well = all(part["ok"] for part in found.values())
    answer: dict[str, Any] = {"success": well}
    if not well:
        answer["msg"] = "not well; who may see more is told what is wrong"
    if is_admitted("health.read"):
        answer["data"] = found
    return answer, 200 if well else 503


def _database(state: State) -> dict[str, Any]:
    try:
        if not history.is_current(state.database):
            return {"ok": False, "problem": "not upgraded; run: flask communication upgrade"}
        with state.database.read() as connection:
            late = connection.execute(
                text(
                    "SELECT count(*) AS due,"
                    f" {speech_of(connection).since('min(due_at)')} AS oldest"
                    " FROM communication_message WHERE status IN ('queued', 'sending')"
                    f" AND priority IN (0, 5, 9) AND due_at <= {speech_of(connection).now}"
                )
            ).one()
        return {"ok": True, "due": late.due, "oldest_due_seconds": late.oldest}
    except Exception as failure:
        return {"ok": False, "problem": type(failure).__name__}


def _attended(state: State, oldest: float | None) -> dict[str, Any]:
    with state.database.read() as connection:
        seen = [one for one in heartbeat.seen(connection) if one.ago < heartbeat.ALIVE_FOR]
        paused = circuits.paused(connection)
    is_late = (oldest or 0.0) > TOO_LATE
    workers = [{"host": one.host, "pid": one.pid, "seen_seconds": round(one.ago, 1)} for one in seen]
    attended: dict[str, Any] = {"ok": bool(seen) or not is_late, "alive": len(seen), "seen": workers}
    if not attended["ok"]:
        attended["problem"] = "work is overdue and nobody attends; start: flask communication worker"
    return {"workers": attended, "circuits": {"ok": True, "paused": paused}}


def _bell(state: State) -> dict[str, Any]:
    if state.bell is None:
        kind = "embedded" if state.settings.embedded_worker else "none"
        return {"ok": True, "kind": kind}
    try:
        state.bell.connect().ping()
        return {"ok": True, "kind": "redis"}
    except Exception as failure:
        # Without a bell messages are late, and not lost: this alone makes nothing unwell.
        return {"ok": True, "kind": "redis", "problem": type(failure).__name__}


@needs("metrics.read")
def metrics() -> Any:
    """Answer the metrics in the text form of Prometheus."""
    from .. import metrics as counted

    try:
        return Response(counted.expose(current()), content_type=counted.CONTENT_TYPE)
    except ImportError:
        raise BadRequest(501, "install the extra: pip install flask-communication[metrics]") from None
