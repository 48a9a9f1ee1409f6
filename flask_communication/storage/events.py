"""The events of messages: reports of providers, and actions of people and workers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import uuid4

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection

from .dialect import Dialect, as_rows, dialect_of

COLUMNS = {
    "message_id": "bigint",
    "config_id": "int",
    "kind": "text",
    "status": "text",
    "ref": "text",
    "dedupe_key": "text",
    "detail": "text",
    "code": "text",
    "occurred_at": "timestamptz",
    "applied": "boolean",
}


def fingerprint(*parts: object) -> str:
    """Return the key by which the same report is recognised."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def store(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store events (see ``COLUMNS``); an event that is stored already is left out.

    A row without ``message_id`` gets that of the message with its ``config_id`` and ``ref``, if
    there is one.
    """
    if rows:
        dialect = dialect_of(connection)
        given = [
            {**row, "occurred_at": dialect.time(row["occurred_at"])}
            if row.get("occurred_at")
            else row
            for row in rows
        ]
        connection.execute(_store(dialect), {"rows": as_rows(given)})


@cache
def _store(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_event (message_id, config_id, kind, status, provider_ref, "
        "dedupe_key, detail, code, occurred_at, received_at, applied) SELECT "
        "COALESCE(r.message_id, (SELECT max(m.id) FROM communication_message AS m WHERE "
        "m.config_id = r.config_id AND m.provider_ref = r.ref)), r.config_id, r.kind, r.status, "
        f"r.ref, r.dedupe_key, r.detail, r.code, r.occurred_at, {dialect.now}, COALESCE(r.applied, "
        f"false) FROM {dialect.rows(COLUMNS)} AS r WHERE true ON CONFLICT (dedupe_key) DO NOTHING"
    )


def note(connection: Connection, message_id: int, kind: str, detail: str) -> None:
    """Store what a person or a worker did to one message."""
    note_all(connection, [message_id], kind, detail)


def note_all(connection: Connection, message_ids: Sequence[int], kind: str, detail: str) -> None:
    """Store what a person or a worker did to several messages."""
    event = {"kind": kind, "detail": detail[:500], "applied": True}
    store(
        connection, [{**event, "message_id": one, "dedupe_key": uuid4().hex} for one in message_ids]
    )
