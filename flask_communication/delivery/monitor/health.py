"""The health check: database, bell, workers, backlog, configurations, and counts of messages."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import text
from sqlalchemy.engine import Connection

from ...configs import breaker
from ...configs.breaker import Breaker
from ...configs.state import State
from ...storage import migrations
from ...storage.dialect import dialect_of
from ...storage.models import ANY_PRIORITY
from ..worker import heartbeat

# Work that has waited so long while no worker is alive is not going to be done.
TOO_LATE = 120.0
# Counting all messages reads an index from end to end: once a minute is enough.
COUNT_EVERY = 60.0
# When the messages of each application were counted last (monotonic seconds), and the counts.
_counted: WeakKeyDictionary[State, tuple[float, list[tuple[object, ...]]]] = WeakKeyDictionary()


class ConfigBreaker(NamedTuple):
    """A configuration, by its key if it has one, and its breaker."""

    key: str | None
    type: str
    breaker: Breaker


def read(state: State, *, counts: bool = True) -> dict[str, dict[str, Any]]:
    """Return the parts of the health check; ``ok`` is false where an operator must do something.

    With ``counts``, also how many messages there are, counted at most once a minute in each
    process.
    """
    found = {"database": _database(state), "bell": _bell(state), "workers": {"ok": True}}
    if found["database"]["ok"]:
        found |= _attended(state, found["database"]["oldest_due_seconds"])
        if counts:
            found["messages"] = _messages(state)
    return found


def _database(state: State) -> dict[str, Any]:
    try:
        if not migrations.is_current(state.database):
            return {"ok": False, "problem": "not upgraded; run: flask communication upgrade"}
        with state.database.read() as connection:
            late = connection.execute(
                text(
                    "SELECT count(*) AS due,"
                    f" {dialect_of(connection).since('min(due_at)')} AS oldest"
                    " FROM communication_message WHERE status IN ('queued', 'sending')"
                    f" AND {ANY_PRIORITY} AND due_at <= {dialect_of(connection).now}"
                )
            ).one()
        return {"ok": True, "due": late.due, "oldest_due_seconds": late.oldest}
    except Exception as failure:
        return {"ok": False, "problem": type(failure).__name__}


def _attended(state: State, oldest: float | None) -> dict[str, Any]:
    with state.database.read() as connection:
        seen = [one for one in heartbeat.seen(connection) if one.ago < heartbeat.ALIVE_FOR]
        paused = breaker.paused(connection)
        every = breakers(connection)
    is_late = (oldest or 0.0) > TOO_LATE
    workers = [
        {"host": one.host, "pid": one.pid, "seen_seconds": round(one.ago, 1)} for one in seen
    ]
    attended: dict[str, Any] = {
        "ok": bool(seen) or not is_late,
        "alive": len(seen),
        "seen": workers,
    }
    if not attended["ok"]:
        attended["problem"] = (
            "work is overdue and nobody attends; start: flask communication worker"
        )
    configs = [
        {
            "config_id": one.breaker.config_id,
            "key": one.key,
            "type": one.type,
            "state": one.breaker.state,
        }
        for one in every
    ]
    return {"workers": attended, "circuits": {"ok": True, "paused": paused, "configs": configs}}


def _bell(state: State) -> dict[str, Any]:
    if state.bell is None:
        kind = "embedded" if state.settings.embedded_worker else "none"
        return {"ok": True, "kind": kind}
    try:
        state.bell.connect().ping()
        return {"ok": True, "kind": "redis"}
    except Exception as failure:
        # Without a bell messages are late, but not lost: this alone is no fault.
        return {"ok": True, "kind": "redis", "problem": type(failure).__name__}


def _messages(state: State) -> dict[str, Any]:
    by_status: dict[str, int] = defaultdict(int)
    by_config: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for _, config_id, status, count in count_messages(state):
        by_status[status] += count
        by_config[str(config_id or "")][status] += count
    return {"ok": True, "by_status": by_status, "by_config": by_config}


def breakers(connection: Connection) -> list[ConfigBreaker]:
    """Return every configuration with its breaker, the oldest first."""
    rows = connection.execute(
        text(
            f"SELECT c.id, c.key, c.type, {breaker.COLUMNS}, 0 -"
            f" {dialect_of(connection).since('k.until')} AS seconds FROM communication_config AS c"
            " LEFT JOIN communication_circuit AS k ON k.config_id = c.id WHERE c.deleted_at IS"
            " NULL ORDER BY c.id"
        )
    )
    return [ConfigBreaker(row.key, row.type, Breaker.of(row)) for row in rows]


def count_messages(state: State) -> list[tuple[Any, ...]]:
    """Return (channel, configuration, status, count), counted at most once a minute a process."""
    known = _counted.get(state)
    if known is None or time.monotonic() - known[0] > COUNT_EVERY:
        with state.database.read() as connection:
            rows = connection.execute(_COUNT).all()
        known = _counted[state] = (time.monotonic(), [tuple(row) for row in rows])
    return known[1]


_COUNT = text(
    "SELECT channel, config_id, status, count(*) FROM communication_message"
    " GROUP BY channel, config_id, status"
)
