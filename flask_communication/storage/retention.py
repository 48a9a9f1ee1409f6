"""Data retention: remove texts and delete messages by age, and erase a recipient's messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from ..errors import InvalidQuery
from .database import Database
from .dialect import Dialect, dialect_of
from .messages import stored_spellings
from .models.operation import hash_recipient
from .models.status import FINAL, SENT

# Rows of one transaction.
BATCH = 500
DAY = 86_400.0
# Reports that belong to no message are kept for so long (seconds).
EVENTS_FOR = 90 * DAY
# The `extra` of a message whose text was removed.
REMOVED = json.dumps({"removed": "by the retention policy"})
_FINAL = ", ".join(repr(one) for one in sorted(FINAL))
# Nothing waits for these messages: no worker, no person and no delivery report.
_AT_REST = f"(status IN ({_FINAL}) OR status = '{SENT}' AND due_at IS NULL)"
_HAS_TEXT = " AND COALESCE(CAST(extra AS varchar(60)), '') <> :removed"

Step = Callable[[Connection], int]


class Erased(NamedTuple):
    """The number of messages that were deleted, and of those that are being sent and so remain."""

    deleted: int
    left: int


def is_my_turn(database: Database) -> bool:
    """Take this hour's sweep; return False if another process has taken it."""
    with database.read() as connection:
        if connection.execute(_taken(dialect_of(connection))).first():
            return False
    with database.write() as connection:
        return bool(connection.execute(_take(dialect_of(connection))).rowcount)


@cache
def _taken(dialect: Dialect) -> TextClause:
    return text(
        "SELECT 1 FROM communication_usage WHERE scope = 'retention'"
        f" AND period = {_HOUR[dialect.name]}"
    )


@cache
def _take(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_usage (scope, period, count, alerted, expires_at)"
        f" VALUES ('retention', {_HOUR[dialect.name]}, 1, false, {dialect.later('7200')})"
        " ON CONFLICT (scope, period) DO NOTHING"
    )


_HOUR = {
    "postgresql": "CAST(floor(extract(epoch from statement_timestamp()) / 3600) AS bigint)",
    "sqlite": "CAST(strftime('%s', 'now') AS integer) / 3600",
}


def sweep(
    database: Database, *, messages_days: float | None, bodies_days: float | None
) -> Iterator[tuple[str, int]]:
    """Delete messages and remove texts of more than so many days; None keeps them.

    Each step changes one batch in its own transaction and yields (what was done, number of rows).
    A caller may stop between two steps: the next sweep continues. A message that waits for anything
    (queued, held, being sent, unknown, or its delivery report) is never touched.
    """
    if messages_days is not None:
        yield from _by_age(database, "messages deleted", messages_days, delete)
    if bodies_days is not None:
        yield from _by_age(database, "texts removed", bodies_days, _remove_texts)
    for what, step in (
        ("counters dropped", _drop_usage),
        ("events dropped", _drop_events),
        ("files dropped", drop_files),
    ):
        yield from _until_done(database, what, step)


def preview(
    database: Database, *, messages_days: float | None, bodies_days: float | None
) -> dict[str, int]:
    """Count the messages that a sweep would change; nothing is changed."""
    found: dict[str, int] = {}
    for what, days, more in (
        ("messages to delete", messages_days, ""),
        ("texts to remove", bodies_days, _HAS_TEXT),
    ):
        if days is not None:
            with database.read() as connection:
                found[what] = _count(connection, _newest_before(connection, days * DAY), more)
    return found


def _count(connection: Connection, upper: int, more: str) -> int:
    found: int = connection.execute(
        text(f"SELECT count(*) FROM communication_message WHERE id <= :upper AND {_AT_REST}{more}"),
        {"upper": upper, **({"removed": REMOVED} if more else {})},
    ).scalar_one()
    return found


def _by_age(
    database: Database, what: str, days: float, change: Callable[[Connection, list[int]], None]
) -> Iterator[tuple[str, int]]:
    with database.read() as connection:
        upper = _newest_before(connection, days * DAY)
    after = 0
    more = _HAS_TEXT if change is _remove_texts else ""
    while True:
        with database.write() as connection:
            ids = _batch(connection, after, upper, more)
            if not ids:
                return
            change(connection, ids)
        after = ids[-1]
        yield what, len(ids)


def _batch(connection: Connection, after: int, upper: int, more: str) -> list[int]:
    found = connection.execute(
        text(
            "SELECT id FROM communication_message WHERE id > :after AND id <= :upper"
            f" AND {_AT_REST}{more} ORDER BY id LIMIT {BATCH} {dialect_of(connection).skip_locked}"
        ),
        {"after": after, "upper": upper, **({"removed": REMOVED} if more else {})},
    )
    return list(found.scalars())


def _newest_before(connection: Connection, seconds: float) -> int:
    """Return the largest id of a message older than so many seconds, 0 if there is none.

    Ids grow with time, so a binary search over the primary key finds it in few queries.
    """
    newest = text("SELECT COALESCE(max(id), 0) FROM communication_message")
    low, high = 0, connection.execute(newest).scalar_one()
    next_row = text(
        f"SELECT id, {dialect_of(connection).since('created_at')} AS age FROM communication_message"
        " WHERE id >= :id ORDER BY id LIMIT 1"
    )
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute(next_row, {"id": middle}).one()
        if row.age > seconds:
            low = max(middle, int(row.id))
        else:
            high = middle - 1
    return low


def _remove_texts(connection: Connection, ids: list[int]) -> None:
    dialect, rows = dialect_of(connection), {"ids": json.dumps(ids), "removed": REMOVED}
    these = _ids(dialect)
    for statement in (
        "UPDATE communication_message SET body = '', meta = NULL,"
        f" extra = {dialect.json(':removed')} WHERE id IN {these}",
        f"UPDATE communication_mail SET html = NULL, raw_sha256 = NULL WHERE message_id IN {these}",
        f"DELETE FROM communication_attachment WHERE message_id IN {these}",
    ):
        connection.execute(text(statement), rows)


def delete(connection: Connection, ids: list[int]) -> None:
    """Delete messages with their attempts, events, mails, recipients and attachments."""
    # ON DELETE CASCADE does the rest.
    connection.execute(
        text(f"DELETE FROM communication_message WHERE id IN {_ids(dialect_of(connection))}"),
        {"ids": json.dumps(ids)},
    )


def _ids(dialect: Dialect) -> str:
    if dialect.name == "postgresql":
        return "(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:ids AS json)))"
    return "(SELECT value FROM json_each(:ids))"


def _until_done(database: Database, what: str, step: Step) -> Iterator[tuple[str, int]]:
    """Repeat a step, each time in its own transaction, until it changes no row."""
    while True:
        try:
            with database.write() as connection:
                done = step(connection)
        except IntegrityError:
            return  # a new message has just used one of the files; the next sweep looks again
        if not done:
            return
        yield what, done


def _drop_usage(connection: Connection) -> int:
    return connection.execute(
        text(
            "DELETE FROM communication_usage WHERE (scope, period) IN (SELECT scope, period FROM"
            f" communication_usage WHERE expires_at < {dialect_of(connection).now} LIMIT {BATCH})"
        )
    ).rowcount


def _drop_events(connection: Connection) -> int:
    return connection.execute(
        text(
            "DELETE FROM communication_event WHERE id IN (SELECT id FROM communication_event"
            f" WHERE message_id IS NULL AND {dialect_of(connection).since('received_at')} > :age"
            f" LIMIT {BATCH})"
        ),
        {"age": EVENTS_FOR},
    ).rowcount


def drop_files(connection: Connection) -> int:
    """Delete a batch of files that no email has carried for a day; return their number."""
    return connection.execute(
        text(
            "DELETE FROM communication_file WHERE sha256 IN"
            " (SELECT f.sha256 FROM communication_file AS f WHERE"
            " NOT EXISTS (SELECT 1 FROM communication_attachment AS a WHERE a.sha256 = f.sha256)"
            " AND NOT EXISTS (SELECT 1 FROM communication_mail AS m WHERE m.raw_sha256 = f.sha256)"
            f" AND {dialect_of(connection).since('f.created_at')} > :age LIMIT {BATCH})"
        ),
        {"age": DAY},
    ).rowcount


def erase(
    database: Database, region: str | None, destination: str, channels: Sequence[str]
) -> Erased:
    """Delete every message of these channels to and from a recipient.

    A number may be spaced, and an address capitalised, in any way. ``region`` is where a number
    without ``+`` belongs. A message that is being sent remains. Suppressions remain too: they keep
    the recipient from being written to again. Raises :class:`InvalidQuery` for an empty recipient.
    """
    if not isinstance(destination, str) or not destination.strip():
        raise InvalidQuery({"recipient": ["must be a number or an address"]})
    with database.read() as connection:
        forms = stored_spellings(connection, destination, region)
    given = {
        "forms": forms,
        "lowered": [one.lower() for one in forms],
        "channels": list(channels),
    }
    deleted = 0
    while count := _erase_batch(database, given):
        deleted += count
    with database.write() as connection:
        _drop_counters(connection, forms, channels)
        left = len(connection.execute(_theirs(""), given).all())
    for _ in _until_done(database, "files dropped", drop_files):
        pass
    return Erased(deleted, left)


def _erase_batch(database: Database, given: dict[str, list[str]]) -> int:
    with database.write() as connection:
        theirs = _theirs(f" AND m.status <> 'sending' LIMIT {BATCH}")
        ids = list(connection.execute(theirs, given).scalars())
        if ids:
            delete(connection, ids)
    return len(ids)


def _theirs(more: str) -> TextClause:
    return text(
        "SELECT m.id FROM communication_message AS m WHERE m.channel IN :channels"
        " AND (m.destination IN :forms OR m.direction = 'in' AND lower(m.sender) IN :lowered"
        " OR m.id IN (SELECT p.message_id FROM communication_recipient AS p"
        " WHERE p.address IN :forms))" + more
    ).bindparams(*(bindparam(name, expanding=True) for name in ("channels", "forms", "lowered")))


def _drop_counters(connection: Connection, forms: Sequence[str], channels: Sequence[str]) -> None:
    """Delete what the limits counted of a recipient; see :class:`.models.Usage`."""
    scopes = [f"{channel}:%{hash_recipient(one)}" for channel in channels for one in forms]
    connection.execute(
        text("DELETE FROM communication_usage WHERE scope LIKE :scope"),
        [{"scope": scope} for scope in scopes],
    )
