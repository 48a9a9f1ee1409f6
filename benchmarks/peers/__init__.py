"""The same work, done by others: a job a message reads its row, posts it, and writes ``sent``."""

from __future__ import annotations

import os
import threading
from typing import Any

import httpx
from sqlalchemy import Engine, create_engine, event, text

_local = threading.local()
MAKE = (
    "CREATE TABLE work (id INTEGER PRIMARY KEY, destination TEXT NOT NULL, msg TEXT NOT NULL,"
    " status TEXT NOT NULL, ref TEXT)"
)


def engine_of(url: str) -> Engine:
    """Open a database with a connection for each thread, and on SQLite with the settings we use."""
    engine = create_engine(url, pool_size=110, max_overflow=0)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare)
    return engine


def _prepare(dbapi: Any, _record: Any) -> None:
    cursor = dbapi.cursor()
    for pragma in ("busy_timeout=60000", "journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def fill(url: str, number: int) -> None:
    """Make the table, and ``number`` rows to be sent."""
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text(MAKE))
        for first in range(0, number, 10_000):
            rows = [
                {"id": n, "to": f"+9199{n:08}"} for n in range(first, min(number, first + 10_000))
            ]
            connection.execute(
                text(
                    "INSERT INTO work VALUES (:id, :to, 'Hello from the benchmark', 'queued', NULL)"
                ),
                rows,
            )
    engine.dispose()


def left(engine: Engine) -> int:
    """Count the rows that are not sent yet."""
    with engine.connect() as connection:
        return int(
            connection.execute(
                text("SELECT count(*) FROM work WHERE status <> 'sent'")
            ).scalar_one()
        )


_engine: Engine | None = None
_lock = threading.Lock()


def engine() -> Engine:
    """Return this process's engine."""
    global _engine
    with _lock:
        if _engine is None:
            _engine = engine_of(os.environ["BENCH_DATABASE"])
    return _engine


def client() -> httpx.Client:
    """Return this thread's client, which keeps its connection."""
    if not hasattr(_local, "client"):
        _local.client = httpx.Client(timeout=20)
    found: httpx.Client = _local.client
    return found


def deliver(number: int) -> None:
    """Send one message."""
    with engine().begin() as connection:
        row = connection.execute(
            text("SELECT destination, msg FROM work WHERE id = :id"), {"id": number}
        ).one()
    body = {"msg": row.msg, "destination": row.destination, "config": {"sender": "BENCH"}}
    answer = client().post(os.environ["BENCH_STUB"] + "/sms/send/", json=body)
    ref = answer.raise_for_status().json()["data"]["msg_uuid"]
    with engine().begin() as connection:
        connection.execute(
            text("UPDATE work SET status = 'sent', ref = :ref WHERE id = :id"),
            {"id": number, "ref": ref},
        )
