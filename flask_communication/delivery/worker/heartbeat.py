"""Heartbeats: each worker process writes one row now and then, for health check and metrics."""

from __future__ import annotations

import logging
import os
import socket
import time
from functools import cache
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Row, TextClause, text
from sqlalchemy.engine import Connection

from ...configs.state import State
from ...storage.dialect import Dialect, dialect_of

log = logging.getLogger(__name__)

BEAT_EVERY = 10.0
# A process that was not seen for so long counts as gone.
ALIVE_FOR = 60.0
# Long enough to be noticed, and no longer: each is a series of its own in the metrics.
FORGOTTEN_AFTER = 3600.0


class Seen(NamedTuple):
    """A worker process, and how many seconds ago it was seen."""

    id: str
    host: str
    pid: int
    ago: float


class Heart:
    """Writes the heartbeat of this process; never fails, and costs one statement in ten seconds."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._id = str(uuid4())
        self._beat_at = float("-inf")

    def beat(self) -> None:
        """Write that this process is a worker, unless it was written lately."""
        now = time.monotonic()
        if now - self._beat_at < BEAT_EVERY:
            return
        is_first, self._beat_at = self._beat_at < 0, now
        try:
            with self._state.database.write() as connection:
                self._write(connection, is_first)
        except Exception:
            # The work goes on; what needs the database more reports the fault.
            log.debug("no heartbeat", exc_info=True)

    def _write(self, connection: Connection, is_first: bool) -> None:
        dialect = dialect_of(connection)
        me = {"id": self._id, "host": socket.gethostname()[:255], "pid": os.getpid()}
        connection.execute(_beat(dialect), me)
        if is_first:
            connection.execute(_forget(dialect), {"seconds": FORGOTTEN_AFTER})

    def stop(self) -> None:
        """Write that this process has stopped working, until it beats again."""
        self._beat_at = float("-inf")
        try:
            with self._state.database.write() as connection:
                connection.execute(
                    text("DELETE FROM communication_heartbeat WHERE id = :id"), {"id": self._id}
                )
        except Exception:
            log.debug("cannot take the heartbeat back", exc_info=True)


@cache
def _beat(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_heartbeat (id, host, pid, started_at, seen_at)"
        f" VALUES (:id, :host, :pid, {dialect.now}, {dialect.now})"
        " ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"
    )


@cache
def _forget(dialect: Dialect) -> TextClause:
    return text(f"DELETE FROM communication_heartbeat WHERE {dialect.since('seen_at')} > :seconds")


def seen(connection: Connection) -> list[Seen]:
    """Return the worker processes of the last hour, the one seen last first."""
    ago = dialect_of(connection).since("seen_at")
    rows: list[Row[Any]] = list(
        connection.execute(
            text(
                f"SELECT id, host, pid, {ago} AS ago FROM communication_heartbeat"
                f" WHERE {ago} <= :seconds ORDER BY ago"
            ),
            {"seconds": FORGOTTEN_AFTER},
        )
    )
    return [Seen(row.id, row.host, row.pid, row.ago) for row in rows]
