"""Messages that await their delivery report: found when they are due, asked about again, moved by it."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection, Row

from ..storage.dialect import Dialect, as_rows, dialect_of
from ..storage.models.status import THRESHOLD
from .outbox import LEASE, Rows

REPORTING = {
    "config_id": "int",
    "ref": "text",
    "status": "text",
    "rank": "int",
    "delay": "double precision",
}


def claim_silent(connection: Connection, limit: int, lease: float = LEASE) -> list[Row[Any]]:
    """Take up to ``limit`` messages whose delivery report is due to be asked for."""
    found = connection.execute(
        _claim_silent(dialect_of(connection)), {"limit": limit, "lease": lease}
    )
    return list(found.all())


@cache
def _claim_silent(dialect: Dialect) -> TextClause:
    return text(
        f"UPDATE communication_message SET due_at = {dialect.later(':lease')} WHERE id IN ("
        "SELECT id FROM communication_message WHERE status IN ('sent', 'unknown')"
        f" AND priority IN (0, 5, 9) AND due_at <= {dialect.now} LIMIT :limit {dialect.skip_locked})"
        f" RETURNING id, channel, config_id, provider_ref, {dialect.since('sent_at')} AS age"
    )


def ask_again(connection: Connection, rows: Rows) -> None:
    """Set when to ask for the reports of ``{"id", "delay"}`` next; a NULL delay is never."""
    if rows:
        connection.execute(_ask_again(dialect_of(connection)), {"rows": as_rows(rows)})


@cache
def _ask_again(dialect: Dialect) -> TextClause:
    columns = {"id": "bigint", "delay": "double precision"}
    return text(
        f"UPDATE communication_message AS m SET due_at = {dialect.later('r.delay')}"
        f" FROM {dialect.rows(columns)} AS r WHERE {dialect.chosen('m.id')}m.id = r.id"
        " AND m.status || '' IN ('sent', 'unknown')"
    )


def report(connection: Connection, rows: Rows) -> list[Row[Any]]:
    """Apply reports (see ``REPORTING``), one for each provider id; return the messages they moved.

    A report that says less than the message already knows changes nothing.
    """
    if not rows:
        return []
    return list(connection.execute(_report(dialect_of(connection)), {"rows": as_rows(rows)}).all())


@cache
def _report(dialect: Dialect) -> TextClause:
    threshold = " ".join(f"WHEN '{status}' THEN {rank}" for status, rank in THRESHOLD.items())
    return text(
        "UPDATE communication_message AS m SET status = r.status, repeat_until = NULL,"
        f" due_at = {dialect.later('r.delay')}, error = CASE WHEN r.status = 'undelivered'"
        " THEN COALESCE(r.detail, m.error) ELSE NULL END,"
        " error_code = CASE WHEN r.status = 'undelivered' THEN r.code ELSE NULL END,"
        f" updated_at = {dialect.now} FROM"
        f" {dialect.rows(REPORTING | {'detail': 'text', 'code': 'text'})} AS r"
        " WHERE m.config_id = r.config_id AND m.provider_ref = r.ref"
        f" AND r.rank >= CASE m.status {threshold} END"
        + dialect.returning("id", "uuid", "channel", "status", "config_id", "provider_ref")
    )
