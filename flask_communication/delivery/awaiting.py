"""Messages that await their delivery report: found when they are due, asked about again, moved by it."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection, Row

from ..storage.database import Speech, as_rows, speech_of
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
    found = connection.execute(_claim_silent(speech_of(connection)), {"limit": limit, "lease": lease})
    return list(found.all())


@cache
def _claim_silent(speech: Speech) -> TextClause:
    return text(
        f"UPDATE communication_message SET due_at = {speech.later(':lease')} WHERE id IN ("
        "SELECT id FROM communication_message WHERE status IN ('sent', 'unknown')"
        f" AND priority IN (0, 5, 9) AND due_at <= {speech.now} LIMIT :limit {speech.skip_locked})"
        f" RETURNING id, channel, config_id, provider_ref, {speech.since('sent_at')} AS age"
    )


def ask_again(connection: Connection, rows: Rows) -> None:
    """Set when to ask for the reports of ``{"id", "delay"}`` next; a NULL delay is never."""
    if rows:
        connection.execute(_ask_again(speech_of(connection)), {"rows": as_rows(rows)})


@cache
def _ask_again(speech: Speech) -> TextClause:
    columns = {"id": "bigint", "delay": "double precision"}
    return text(
        f"UPDATE communication_message AS m SET due_at = {speech.later('r.delay')}"
        f" FROM {speech.rows(columns)} AS r WHERE {speech.chosen('m.id')}m.id = r.id"
        " AND m.status || '' IN ('sent', 'unknown')"
    )


def report(connection: Connection, rows: Rows) -> list[Row[Any]]:
    """Apply reports (see ``REPORTING``), one for each provider id; return the messages they moved.

    A report that says less than the message already knows changes nothing.
    """
    if not rows:
        return []
    return list(connection.execute(_report(speech_of(connection)), {"rows": as_rows(rows)}).all())


@cache
def _report(speech: Speech) -> TextClause:
    threshold = " ".join(f"WHEN '{status}' THEN {rank}" for status, rank in THRESHOLD.items())
    return text(
        "UPDATE communication_message AS m SET status = r.status, repeat_until = NULL,"
        f" due_at = {speech.later('r.delay')}, error = CASE WHEN r.status = 'undelivered'"
        " THEN COALESCE(r.detail, m.error) ELSE NULL END,"
        " error_code = CASE WHEN r.status = 'undelivered' THEN r.code ELSE NULL END,"
        f" updated_at = {speech.now} FROM"
        f" {speech.rows(REPORTING | {'detail': 'text', 'code': 'text'})} AS r"
        " WHERE m.config_id = r.config_id AND m.provider_ref = r.ref"
        f" AND r.rank >= CASE m.status {threshold} END"
        + speech.returning("id", "uuid", "channel", "status", "config_id", "provider_ref")
    )
