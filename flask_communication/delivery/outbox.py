"""The SQL by which workers move messages: accept, claim, start, settle, dismiss, rescue.

The moves of a person are in ``actions``, those of a delivery report in ``reports``; nothing else
changes a status.

Each function is one or two SQL statements for any number of rows, inside a transaction the caller
has opened. Their guards, the status before and the one after, come from ``status.MOVES``. The
statements are text, not Core: this is the hot path, and text is 2.5 times as fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection, Row

from ..storage.crashpoints import crash_point
from ..storage.dialect import Dialect, as_rows, dialect_of
from ..storage.models import ANY_PRIORITY, BULK, PRIORITIES
from ..storage.models.status import ACCEPTED, DISMISS, OPEN, RESCUE, SETTLE, sources, targets
from .transitions import Claim, Dismissal, NewMessage, Settlement, Start, Stranded

# A claim, and a call, must be over by then, or somebody else takes the message up.
LEASE = 60.0


def among(*moves: str) -> str:
    """Write the statuses from which these moves start, as constants: partial indexes need them."""
    return listed(sources(moves))


def listed(statuses: Iterable[str]) -> str:
    """Write statuses as SQL constants."""
    return ", ".join(f"'{status}'" for status in sorted(set(statuses)))


def _may(dialect: Dialect, *moves: str) -> str:
    """Write the guard of these moves: the status before."""
    # Not by an index on the status: PostgreSQL would walk all that have it, rather than look up
    # ids.
    return f"{dialect.chosen('m.id')}m.status || '' IN ({among(*moves)})"


def _asks_for(*moves: str) -> str:
    """Write the guard of these moves: the status that ``r`` asks for."""
    return f"r.status IN ({listed(targets(moves))})"


def accept(connection: Connection, rows: Sequence[NewMessage]) -> set[str]:
    """Insert messages as ``queued``; return the uuids that were new.

    A row whose idempotency key exists already is left out: see :func:`accepted_before`.
    """
    found = connection.execute(_accept(dialect_of(connection)), {"rows": as_rows(rows)})
    return set(found.scalars().all())


@cache
def _accept(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_message (uuid, channel, direction, status, destination, "
        "sender, body, config_id, route_id, priority, due_at, expires_at, idempotency_key, "
        "body_hash, meta, fence, tries, crashes, resends, created_at, updated_at) SELECT r.uuid, "
        "r.channel, 'out', 'queued', r.destination, r.sender, r.body, r.config_id, r.config_id, "
        f"r.priority, COALESCE(r.send_at, {dialect.now}), COALESCE(r.expires_at, "
        f"{dialect.later('r.lifetime')}), r.idempotency_key, r.body_hash, r.meta, 0, 0, 0, 0, "
        f"{dialect.now}, {dialect.now} FROM {dialect.rows(NewMessage)} AS r WHERE true"
        " ON CONFLICT (channel, idempotency_key) WHERE idempotency_key IS NOT NULL"
        " DO NOTHING RETURNING uuid"
    )


def accepted_before(
    connection: Connection, channel: str, keys: Iterable[str]
) -> dict[str, Row[Any]]:
    """Return what idempotency keys were used for: key -> (idempotency_key, uuid, body_hash)."""
    dialect = dialect_of(connection)
    found = connection.execute(
        _accepted_before(dialect),
        {"channel": channel, "rows": as_rows([{"key": key} for key in keys])},
    )
    return {row.idempotency_key: row for row in found}


@cache
def _accepted_before(dialect: Dialect) -> TextClause:
    return text(
        "SELECT m.idempotency_key, m.uuid, m.body_hash FROM communication_message AS m"
        f" JOIN {dialect.rows({'key': 'text'})} AS r ON m.idempotency_key = r.key"
        " WHERE m.channel = :channel AND m.idempotency_key IS NOT NULL"
    )


def claim(
    connection: Connection, limit: int, lease: float | None = None, before: int = BULK + 1
) -> list[Claim]:
    """Claim up to ``limit`` due messages, urgent ones first, for ``lease`` seconds (None: LEASE).

    Only those more urgent than the priority ``before`` are claimed.
    """
    priorities = tuple(one for one in sorted(PRIORITIES.values()) if one < before)
    statement = _claim(dialect_of(connection), priorities)
    found = connection.execute(statement, {"limit": limit, "lease": lease or LEASE})
    claims = [Claim(*row) for row in found]
    crash_point("claim.written", claims)
    return claims


# What a claim returns besides the columns of the message.
_COMPUTED = {
    "closed": "COALESCE(repeat_until <= {now}, false)",
    "stale": "expires_at <= {now}",
    "age": "{age}",
}


def _returned(dialect: Dialect, shape: type[Claim] | type[Stranded]) -> str:
    known = {"now": dialect.now, "age": dialect.since("first_tried_at")}
    return ", ".join(_COMPUTED.get(one.name, one.name).format(**known) for one in fields(shape))


@cache
def _claim(dialect: Dialect, priorities: Sequence[int]) -> TextClause:
    # Each priority for itself, as far as those before it leave room: a range of the index, in its
    # order and no finer: what was accepted together is due at one moment, and would all be sorted
    # for each claim.
    due, room = [], ":limit"
    for one in priorities:
        due.append(
            f"p{one} AS MATERIALIZED (SELECT id FROM communication_message WHERE status = 'queued'"
            f" AND priority = {one} AND due_at <= {dialect.now} ORDER BY due_at LIMIT {room}"
            f" {dialect.skip_locked})"
        )
        room += f" - (SELECT count(*) FROM p{one})"
    ids = " UNION ALL ".join(f"SELECT id FROM p{one}" for one in priorities)
    return text(
        f"WITH {', '.join(due)} UPDATE communication_message SET fence = fence + 1, due_at ="
        f" {dialect.later(':lease')}, updated_at = {dialect.now} WHERE {dialect.among('id', ids)}"
        f" RETURNING {_returned(dialect, Claim)}"
    )


def start(connection: Connection, rows: Sequence[Start], lease: float | None = None) -> set[int]:
    """Write down that these claimed messages are about to be sent; return the ids that may be.

    The others were cancelled, or claimed by somebody else after our lease ran out.
    """
    if not rows:
        return set()
    dialect, given = dialect_of(connection), as_rows(rows)
    started = connection.execute(
        _start(dialect), {"rows": given, "lease": lease or LEASE}
    ).scalars()
    ids = set(started.all())
    connection.execute(_begin_attempts(dialect), {"rows": given})
    crash_point("start.written", ids)
    return ids


@cache
def _start(dialect: Dialect) -> TextClause:
    return text(
        "UPDATE communication_message AS m SET status = 'sending', tries = m.tries + 1, due_at ="
        f" {dialect.later(':lease')}, first_tried_at = COALESCE(m.first_tried_at, {dialect.now}),"
        f" config_id = r.config_id, updated_at = {dialect.now} FROM {dialect.rows(Start)} AS r"
        " WHERE m.id = r.id AND m.fence = r.fence AND"
        f" {_may(dialect, 'start')}{dialect.returning('id')}"
    )


@cache
def _begin_attempts(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_attempt (message_id, fence, config_id, key, state, started_at)"
        f" SELECT m.id, m.fence, r.config_id, r.key, 'open', {dialect.now} FROM"
        f" {dialect.rows(Start)} AS r JOIN communication_message AS m ON m.id = r.id AND m.fence"
        f" = r.fence WHERE {dialect.chosen('m.id')}m.status || '' = 'sending' ON CONFLICT"
        " (message_id, fence) DO NOTHING"
    )


def settle(connection: Connection, rows: Sequence[Settlement]) -> set[int]:
    """Write down how sending ended; return the ids of the messages that moved.

    A message that somebody else has taken up since stays as it is, unless this call was *accepted*:
    then it has rung, and that wins over whatever was guessed meanwhile.
    """
    if not rows:
        return set()
    dialect, given = dialect_of(connection), as_rows(rows)
    moved = set(connection.execute(_settle(dialect), {"rows": given}).scalars().all())
    connection.execute(_end_attempts(dialect), {"rows": given})
    late = [row for row in rows if row.id not in moved and row.state == ACCEPTED]
    if late:
        moved |= set(
            connection.execute(_late_truth(dialect), {"rows": as_rows(late)}).scalars().all()
        )
    crash_point("settle.written")
    return moved


@cache
def _settle(dialect: Dialect) -> TextClause:
    retry_at = dialect.least(dialect.later("r.delay"), "m.expires_at")
    return text(
        "UPDATE communication_message AS m SET status = r.status, due_at = CASE WHEN r.status ="
        f" 'queued' THEN {retry_at} ELSE {dialect.later('r.delay')} END, repeat_until = CASE WHEN"
        " r.status <> 'queued' THEN NULL ELSE COALESCE(m.repeat_until,"
        f" {dialect.later('r.repeat_for')}) END, provider_ref = COALESCE(r.ref, m.provider_ref),"
        " extra = COALESCE(r.extra, m.extra), error = r.error, error_code = r.code, sent_at = CASE"
        f" WHEN r.status = 'sent' THEN {dialect.now} ELSE m.sent_at END, updated_at = {dialect.now}"
        f" FROM {dialect.rows(Settlement)} AS r WHERE m.id = r.id AND m.fence = r.fence AND"
        f" {_asks_for(*SETTLE)} AND {_may(dialect, *SETTLE)}" + dialect.returning("id")
    )


@cache
def _end_attempts(dialect: Dialect) -> TextClause:
    return text(
        f"UPDATE communication_attempt AS a SET state = r.state, ended_at = {dialect.now},"
        " http_status = r.http_status, provider_ref = r.ref, error = r.error, error_code = r.code"
        f" FROM {dialect.rows(Settlement)} AS r"
        f" WHERE {dialect.chosen('a.message_id')}a.message_id = r.id AND a.fence = r.fence"
    )


@cache
def _late_truth(dialect: Dialect) -> TextClause:
    return text(
        "UPDATE communication_message AS m SET status = 'sent', fence = m.fence + 1,"
        f" due_at = {dialect.later('r.delay')}, repeat_until = NULL,"
        " provider_ref = COALESCE(r.ref, m.provider_ref), extra = COALESCE(r.extra, m.extra),"
        f" error = NULL, error_code = NULL, sent_at = {dialect.now}, updated_at = {dialect.now}"
        f" FROM {dialect.rows(Settlement)} AS r"
        f" WHERE m.id = r.id AND {_may(dialect, 'late_truth')}{dialect.returning('id')}"
    )


def dismiss(connection: Connection, rows: Sequence[Dismissal]) -> set[int]:
    """End, or put off, claimed messages without a call (see ``DISMISSING``).

    Return the ids moved.
    """
    if not rows:
        return set()
    moved = connection.execute(_dismiss(dialect_of(connection)), {"rows": as_rows(rows)})
    return set(moved.scalars().all())


@cache
def _dismiss(dialect: Dialect) -> TextClause:
    put_off = dialect.least(dialect.later("r.delay"), "m.expires_at")
    return text(
        f"UPDATE communication_message AS m SET status = r.status,"
        f" due_at = CASE WHEN r.status = 'queued' THEN {put_off} ELSE NULL END,"
        f" error = COALESCE(r.error, m.error), updated_at = {dialect.now}"
        f" FROM {dialect.rows(Dismissal)} AS r"
        f" WHERE m.id = r.id AND m.fence = r.fence AND {_asks_for(*DISMISS)}"
        f" AND {_may(dialect, *DISMISS)}" + dialect.returning("id")
    )


def stranded(connection: Connection, limit: int = 500) -> list[Stranded]:
    """Find messages whose lease ran out while they were being sent."""
    found = connection.execute(_stranded(dialect_of(connection)), {"limit": limit})
    return [Stranded(*row) for row in found]


@cache
def _stranded(dialect: Dialect) -> TextClause:
    return text(
        f"SELECT {_returned(dialect, Stranded)} FROM communication_message"
        f" WHERE status = 'sending' AND {ANY_PRIORITY}"
        f" AND due_at <= {dialect.now} LIMIT :limit"
    )


def rescue(connection: Connection, rows: Sequence[Settlement]) -> set[int]:
    """Move stranded messages on; return the ids of those still stranded until now.

    Their attempts become *unknown*: whoever made the call cannot tell us any more.
    """
    if not rows:
        return set()
    dialect = dialect_of(connection)
    moved = set(connection.execute(_rescue(dialect), {"rows": as_rows(rows)}).scalars().all())
    mine = as_rows([row for row in rows if row.id in moved])
    connection.execute(_abandon_attempts(dialect), {"rows": mine})
    crash_point("rescue.written", moved)
    return moved


@cache
def _rescue(dialect: Dialect) -> TextClause:
    return text(
        "UPDATE communication_message AS m SET status = r.status, fence = m.fence + 1,"
        f" crashes = m.crashes + 1, due_at = {dialect.later('r.delay')},"
        f" repeat_until = CASE WHEN r.status <> 'queued' THEN NULL"
        f" ELSE COALESCE(m.repeat_until, {dialect.later('r.repeat_for')}) END,"
        f" error = r.error, error_code = NULL, updated_at = {dialect.now}"
        f" FROM {dialect.rows(Settlement)} AS r WHERE m.id = r.id AND m.fence = r.fence"
        f" AND {_asks_for(*RESCUE)} AND {_may(dialect, *RESCUE)} AND m.due_at <= {dialect.now}"
        + dialect.returning("id")
    )


@cache
def _abandon_attempts(dialect: Dialect) -> TextClause:
    return text(
        f"UPDATE communication_attempt AS a SET state = 'unknown', ended_at = {dialect.now}, error "
        f"= r.error FROM {dialect.rows(Settlement)} AS r WHERE "
        f"{dialect.chosen('a.message_id')}a.message_id = r.id AND a.fence = r.fence AND a.state = "
        "'open'"
    )


def next_due(connection: Connection) -> float | None:
    """Return in how many seconds a message needs attention, 0 or less for now, None for never."""
    found: float | None = connection.execute(_next_due(dialect_of(connection))).scalar()
    return found


@cache
def _next_due(dialect: Dialect) -> TextClause:
    # One look at the end of each range of the index. Written one by one PostgreSQL plans them for 3
    # ms.
    ranges = ", ".join(
        f"('{name}', {number})" for name in sorted(OPEN) for number in PRIORITIES.values()
    )
    looks = (
        "SELECT (SELECT m.due_at FROM communication_message AS m WHERE m.status = r.column1"
        " AND m.priority = r.column2 AND m.due_at IS NOT NULL ORDER BY m.due_at LIMIT 1) AS due_at"
        f" FROM (VALUES {ranges}) AS r"
    )
    return text(f"SELECT 0 - {dialect.since('min(due_at)')} FROM ({looks}) AS soonest")
