"""``health``: is it up, is work piling up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from .. import history
from ..database import speech_of
from ..state import State, current
from .access import is_admitted


def health() -> Any:
    """Tell whether the database and the bell answer; details only for who may see them."""
    state = current()
    found = {"database": _database(state), "bell": _bell(state)}
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
