"""Accept, claim, start, settle, rescue: what workers do to a message's status.

A person's moves are in ``decisions``, those of a delivery report in ``awaiting``; nothing else changes a
status.

Each function is one or two SQL statements for any number of rows, inside a transaction the caller has
opened. Guards come from ``status.MOVES``. The statements are text, not Core: this is the hot path, and
text is 2.5 times as fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection, Row

from ..storage.crashpoints import crash_point
from ..storage.database import Speech, as_rows, speech_of
from ..storage.models import BULK, PRIORITIES
from ..storage.models.status import MOVES, OPEN

# A claim, and a call, must be over by then, or somebody else takes the message up.
LEASE = 60.0

Rows = Sequence[Mapping[str, Any]]

NEW = {
    "uuid": "text",
    "channel": "text",
    "destination": "text",
    "sender": "text",
    "body": "text",
    "config_id": "int",
    "priority": "int",
    "send_at": "timestamptz",
    "expires_at": "timestamptz",
    "lifetime": "double precision",
    "idempotency_key": "text",
    "body_hash": "text",
    "meta": "json",
}
STARTING = {"id": "bigint", "fence": "int", "config_id": "int", "key": "text"}
SETTLING = {
    "id": "bigint",
    "fence": "int",
    "status": "text",
    "state": "text",
    "delay": "double precision",
    "repeat_for": "double precision",
    "ref": "text",
    "extra": "json",
    "error": "text",
    "code": "text",
    "http_status": "int",
}
DISMISSING = {
    "id": "bigint",
    "fence": "int",
    "status": "text",
    "delay": "double precision",
    "error": "text",
}


def among(move: str) -> str:
    """Write the statuses a move may start from; constants, so that partial indexes are used."""
    return ", ".join(f"'{status}'" for status in sorted(MOVES[move].sources))


def _may(speech: Speech, move: str) -> str:
    # Not by an index on the status: PostgreSQL would walk all that have it, rather than look up ids.
    return f"{speech.chosen('m.id')}m.status || '' IN ({among(move)})"


def accept(connection: Connection, rows: Rows) -> set[str]:
    """Insert messages as ``queued``; return the uuids that were new.

    A row whose idempotency key exists already is left out: see :func:`accepted_before`.
    """
    found = connection.execute(_accept(speech_of(connection)), {"rows": as_rows(rows)})
    return set(found.scalars().all())


@cache
def _accept(speech: Speech) -> TextClause:
    return text(
        "INSERT INTO communication_message (uuid, channel, direction, status, destination, sender, body,"
        " config_id, route_id, priority, due_at, expires_at, idempotency_key, body_hash, meta,"
        " fence, tries, crashes, resends, created_at, updated_at)"
        " SELECT r.uuid, r.channel, 'out', 'queued', r.destination, r.sender, r.body, r.config_id,"
        f" r.config_id, r.priority, COALESCE(r.send_at, {speech.now}),"
        f" COALESCE(r.expires_at, {speech.later('r.lifetime')}), r.idempotency_key, r.body_hash, r.meta,"
        f" 0, 0, 0, 0, {speech.now}, {speech.now} FROM {speech.rows(NEW)} AS r WHERE true"
        " ON CONFLICT (channel, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
        " RETURNING uuid"
    )


def accepted_before(connection: Connection, channel: str, keys: Iterable[str]) -> dict[str, Row[Any]]:
    """Return what idempotency keys were used for: key -> (idempotency_key, uuid, body_hash)."""
    speech = speech_of(connection)
    found = connection.execute(
        _accepted_before(speech),
        {"channel": channel, "rows": as_rows([{"key": key} for key in keys])},
    )
    return {row.idempotency_key: row for row in found}


@cache
def _accepted_before(speech: Speech) -> TextClause:
    return text(
        "SELECT m.idempotency_key, m.uuid, m.body_hash FROM communication_message AS m"
        f" JOIN {speech.rows({'key': 'text'})} AS r ON m.idempotency_key = r.key"
        " WHERE m.channel = :channel AND m.idempotency_key IS NOT NULL"
    )


def claim(
    connection: Connection, limit: int, lease: float | None = None, before: int = BULK + 1
) -> list[Row[Any]]:
    """Take up to ``limit`` due messages, the urgent ones first, for ``lease`` seconds (None: LEASE).

    Only those more urgent than the priority ``before`` are taken.

    Each row has what a call needs, its new ``fence``, ``stale`` (past its ``expires_at``),
    ``repeat_until`` (an earlier try is in doubt) and ``closed`` (and may no longer be repeated), and
    ``age`` (seconds since the first try, NULL before it).
    """
    priorities = tuple(one for one in sorted(PRIORITIES.values()) if one < before)
    statement = _claim(speech_of(connection), priorities)
    claimed = list(connection.execute(statement, {"limit": limit, "lease": lease or LEASE}).all())
    crash_point("claim.written", claimed)
    return claimed


@cache
def _claim(speech: Speech, priorities: Sequence[int]) -> TextClause:
    # Each priority for itself, as far as those before it leave room: a range of the index, in its order
    # and no finer: what was accepted together is due at one moment, and would all be sorted for each claim.
    due, room = [], ":limit"
    for one in priorities:
        due.append(
            f"p{one} AS MATERIALIZED (SELECT id FROM communication_message WHERE status = 'queued'"
            f" AND priority = {one} AND due_at <= {speech.now} ORDER BY due_at LIMIT {room}"
            f" {speech.skip_locked})"
        )
        room += f" - (SELECT count(*) FROM p{one})"
    ids = " UNION ALL ".join(f"SELECT id FROM p{one}" for one in priorities)
    return text(
        f"WITH {', '.join(due)} UPDATE communication_message SET fence = fence + 1,"
        f" due_at = {speech.later(':lease')}, updated_at = {speech.now} WHERE {speech.among('id', ids)}"
        " RETURNING id, fence, uuid, channel, destination, sender, body, config_id, route_id, priority,"
        " provider_ref, resends, tries, meta, repeat_until, admitted_at,"
        f" COALESCE(repeat_until <= {speech.now}, false) AS closed, expires_at <= {speech.now} AS stale,"
        f" {speech.since('first_tried_at')} AS age"
    )


def start(connection: Connection, rows: Rows, lease: float | None = None) -> set[int]:
    """Write down that these claimed messages are about to be dialled; return the ids that may be.

    The others were cancelled, or claimed by somebody else after our lease ran out.
    """
    if not rows:
        return set()
    speech, given = speech_of(connection), as_rows(rows)
    started = connection.execute(_start(speech), {"rows": given, "lease": lease or LEASE}).scalars()
    ids = set(started.all())
    connection.execute(_begin_attempts(speech), {"rows": given})
    crash_point("start.written", ids)
    return ids


@cache
def _start(speech: Speech) -> TextClause:
    return text(
        "UPDATE communication_message AS m SET status = 'sending', tries = m.tries + 1,"
        f" due_at = {speech.later(':lease')}, first_tried_at = COALESCE(m.first_tried_at, {speech.now}),"
        f" config_id = r.config_id, updated_at = {speech.now} FROM {speech.rows(STARTING)} AS r"
        f" WHERE m.id = r.id AND m.fence = r.fence AND {_may(speech, 'start')}{speech.returning('id')}"
    )


@cache
def _begin_attempts(speech: Speech) -> TextClause:
    return text(
        "INSERT INTO communication_attempt (message_id, fence, config_id, key, state, started_at)"
        f" SELECT m.id, m.fence, r.config_id, r.key, 'open', {speech.now}"
        f" FROM {speech.rows(STARTING)} AS r JOIN communication_message AS m"
        f" ON m.id = r.id AND m.fence = r.fence WHERE {speech.chosen('m.id')}m.status || '' = 'sending'"
        " ON CONFLICT (message_id, fence) DO NOTHING"
    )


def settle(connection: Connection, rows: Rows) -> set[int]:
    """Write down how calls ended (see ``SETTLING``); return the ids of the messages that moved.

    A message that somebody else has taken up since stays as it is, unless this call was *accepted*:
    then it has rung, and that wins over whatever was guessed meanwhile.
    """
    if not rows:
        return set()
    speech, given = speech_of(connection), as_rows(rows)
    moved = set(connection.execute(_settle(speech), {"rows": given}).scalars().all())
    connection.execute(_end_attempts(speech), {"rows": given})
    late = [row for row in rows if row["id"] not in moved and row["state"] == "accepted"]
    if late:
        moved |= set(connection.execute(_late_truth(speech), {"rows": as_rows(late)}).scalars().all())
    crash_point("settle.written")
    return moved


@cache
def _settle(speech: Speech) -> TextClause:
    retry_at = speech.least(speech.later("r.delay"), "m.expires_at")
    return text(
        "UPDATE communication_message AS m SET status = r.status,"
        f" due_at = CASE WHEN r.status = 'queued' THEN {retry_at} ELSE {speech.later('r.delay')} END,"
        f" repeat_until = CASE WHEN r.status <> 'queued' THEN NULL"
        f" ELSE COALESCE(m.repeat_until, {speech.later('r.repeat_for')}) END,"
        " provider_ref = COALESCE(r.ref, m.provider_ref), extra = COALESCE(r.extra, m.extra),"
        " error = r.error, error_code = r.code,"
        f" sent_at = CASE WHEN r.status = 'sent' THEN {speech.now} ELSE m.sent_at END,"
        f" updated_at = {speech.now} FROM {speech.rows(SETTLING)} AS r"
        f" WHERE m.id = r.id AND m.fence = r.fence AND {_may(speech, 'accept')}" + speech.returning("id")
    )


@cache
def _end_attempts(speech: Speech) -> TextClause:
    return text(
        f"UPDATE communication_attempt AS a SET state = r.state, ended_at = {speech.now},"
        " http_status = r.http_status, provider_ref = r.ref, error = r.error, error_code = r.code"
        f" FROM {speech.rows(SETTLING)} AS r"
        f" WHERE {speech.chosen('a.message_id')}a.message_id = r.id AND a.fence = r.fence"
    )


@cache
def _late_truth(speech: Speech) -> TextClause:
    return text(
        "UPDATE communication_message AS m SET status = 'sent', fence = m.fence + 1,"
        f" due_at = {speech.later('r.delay')}, repeat_until = NULL,"
        " provider_ref = COALESCE(r.ref, m.provider_ref), extra = COALESCE(r.extra, m.extra),"
        f" error = NULL, error_code = NULL, sent_at = {speech.now}, updated_at = {speech.now}"
        f" FROM {speech.rows(SETTLING)} AS r"
        f" WHERE m.id = r.id AND {_may(speech, 'late_truth')}{speech.returning('id')}"
    )


def dismiss(connection: Connection, rows: Rows) -> set[int]:
    """End, or put off, claimed messages without a call (see ``DISMISSING``); return the ids moved."""
    if not rows:
        return set()
    moved = connection.execute(_dismiss(speech_of(connection)), {"rows": as_rows(rows)})
    return set(moved.scalars().all())


@cache
def _dismiss(speech: Speech) -> TextClause:
    put_off = speech.least(speech.later("r.delay"), "m.expires_at")
    return text(
        f"UPDATE communication_message AS m SET status = r.status,"
        f" due_at = CASE WHEN r.status = 'queued' THEN {put_off} ELSE NULL END,"
        f" error = COALESCE(r.error, m.error), updated_at = {speech.now}"
        f" FROM {speech.rows(DISMISSING)} AS r"
        f" WHERE m.id = r.id AND m.fence = r.fence AND {_may(speech, 'expire')}" + speech.returning("id")
    )


def stranded(connection: Connection, limit: int = 500) -> list[Row[Any]]:
    """Find messages whose lease ran out while they were being dialled."""
    speech = speech_of(connection)
    return list(
        connection.execute(
            text(
                "SELECT id, fence, uuid, channel, config_id, crashes,"
                f" {speech.since('first_tried_at')} AS age FROM communication_message"
                " WHERE status = 'sending' AND priority IN (0, 5, 9)"
                f" AND due_at <= {speech.now} LIMIT :limit"
            ),
            {"limit": limit},
        )
    )


def rescue(connection: Connection, rows: Rows) -> set[int]:
    """Move stranded messages on (see ``SETTLING``); return the ids of those still stranded until now.

    Their attempts become *unknown*: whoever made the call cannot tell us any more.
    """
    if not rows:
        return set()
    speech = speech_of(connection)
    moved = set(connection.execute(_rescue(speech), {"rows": as_rows(rows)}).scalars().all())
    mine = as_rows([row for row in rows if row["id"] in moved])
    connection.execute(_abandon_attempts(speech), {"rows": mine})
    crash_point("rescue.written", moved)
    return moved


@cache
def _rescue(speech: Speech) -> TextClause:
    return text(
        "UPDATE communication_message AS m SET status = r.status, fence = m.fence + 1,"
        f" crashes = m.crashes + 1, due_at = {speech.later('r.delay')},"
        f" repeat_until = CASE WHEN r.status <> 'queued' THEN NULL"
        f" ELSE COALESCE(m.repeat_until, {speech.later('r.repeat_for')}) END,"
        f" error = r.error, error_code = NULL, updated_at = {speech.now}"
        f" FROM {speech.rows(SETTLING)} AS r WHERE m.id = r.id AND m.fence = r.fence"
        f" AND {_may(speech, 'rescue_doubt')} AND m.due_at <= {speech.now}{speech.returning('id')}"
    )


@cache
def _abandon_attempts(speech: Speech) -> TextClause:
    return text(
        f"UPDATE communication_attempt AS a SET state = 'unknown', ended_at = {speech.now}, error = r.error"
        f" FROM {speech.rows(SETTLING)} AS r"
        f" WHERE {speech.chosen('a.message_id')}a.message_id = r.id AND a.fence = r.fence"
        " AND a.state = 'open'"
    )


def next_due(connection: Connection) -> float | None:
    """Return in how many seconds a message needs attention, 0 or less for now, None for never."""
    found: float | None = connection.execute(_next_due(speech_of(connection))).scalar()
    return found


@cache
def _next_due(speech: Speech) -> TextClause:
    # One look at the end of each range of the index. Written one by one PostgreSQL plans them for 3 ms.
    ranges = ", ".join(f"('{name}', {number})" for name in sorted(OPEN) for number in PRIORITIES.values())
    looks = (
        "SELECT (SELECT m.due_at FROM communication_message AS m WHERE m.status = r.column1"
        " AND m.priority = r.column2 AND m.due_at IS NOT NULL ORDER BY m.due_at LIMIT 1) AS due_at"
        f" FROM (VALUES {ranges}) AS r"
    )
    return text(f"SELECT 0 - {speech.since('min(due_at)')} FROM ({looks}) AS soonest")
