"""How long messages are kept: texts are removed, and rows deleted, when the host's policy says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from ..configs.state import State
from .dialect import Dialect, dialect_of
from .models.status import FINAL, SENT

BATCH = 500
DAY = 86_400.0
EVENTS_FOR = 90 * DAY
# What stands in `extra` of a message whose text is gone.
REMOVED = json.dumps({"removed": "by the retention policy"})
_FINAL = ", ".join(repr(one) for one in sorted(FINAL))
_AT_REST = f"(status IN ({_FINAL}) OR status = '{SENT}' AND due_at IS NULL)"

Step = Callable[[Connection], int]


def is_my_turn(state: State) -> bool:
    """Tell whether this process is the one that sweeps in this hour."""
    with state.database.read() as connection:
        if connection.execute(_taken(dialect_of(connection))).first():
            return False
    with state.database.write() as connection:
        return bool(connection.execute(_turn(dialect_of(connection))).rowcount)


@cache
def _taken(dialect: Dialect) -> TextClause:
    return text(
        "SELECT 1 FROM communication_usage WHERE scope = 'retention' AND period = "
        f"{_HOUR[dialect.name]}"
    )


@cache
def _turn(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_usage (scope, period, count, alerted, expires_at)"
        f" VALUES ('retention', {_HOUR[dialect.name]}, 1, false, {dialect.later('7200')})"
        " ON CONFLICT (scope, period) DO NOTHING"
    )


_HOUR = {
    "postgresql": "CAST(floor(extract(epoch from statement_timestamp()) / 3600) AS bigint)",
    "sqlite": "CAST(strftime('%s', 'now') AS integer) / 3600",
}


def sweep(state: State) -> Iterator[tuple[str, int]]:
    """Do what the policy asks, a small batch at each step; yield what was done and to how many rows.

    Whoever stops half-way loses nothing: the next sweep goes on. Messages that wait for something
    (queued, being sent, held, unknown, or a report that is still asked for) are never touched.
    """
    settings = state.settings
    if settings.keep_messages_days is not None:
        yield from _old(state, "messages deleted", settings.keep_messages_days, delete)
    if settings.keep_bodies_days is not None:
        yield from _old(state, "texts removed", settings.keep_bodies_days, _strip)
    for what, step in (
        ("counters dropped", _drop_usage),
        ("events dropped", _drop_events),
        ("files dropped", drop_files),
    ):
        yield from steps(state, what, step)


def plan(state: State) -> dict[str, int]:
    """Count what a sweep would do to messages; nothing is changed."""
    found: dict[str, int] = {}
    settings = state.settings
    for what, days, extra in (
        ("messages to delete", settings.keep_messages_days, ""),
        ("texts to remove", settings.keep_bodies_days, _HAS_TEXT),
    ):
        if days is not None:
            with state.database.read() as connection:
                upper = _newest_before(connection, days * DAY)
                found[what] = connection.execute(
                    text(
                        "SELECT count(*) FROM communication_message WHERE id <= :upper AND "
                        f"{_AT_REST}{extra}"
                    ),
                    {"upper": upper, **({"removed": REMOVED} if extra else {})},
                ).scalar_one()
    return found


_HAS_TEXT = " AND COALESCE(CAST(extra AS varchar(60)), '') <> :removed"


def _old(
    state: State, what: str, days: float, change: Callable[[Connection, list[int]], None]
) -> Iterator[tuple[str, int]]:
    with state.database.read() as connection:
        upper = _newest_before(connection, days * DAY)
    after = 0
    extra = _HAS_TEXT if change is _strip else ""
    while True:
        with state.database.write() as connection:
            ids = _batch(connection, after, upper, extra)
            if not ids:
                return
            change(connection, ids)
        after = ids[-1]
        yield what, len(ids)


def _batch(connection: Connection, after: int, upper: int, extra: str) -> list[int]:
    found = connection.execute(
        text(
            "SELECT id FROM communication_message WHERE id > :after AND id <= :upper AND "
            f"{_AT_REST}{extra} ORDER BY id LIMIT {BATCH} {dialect_of(connection).skip_locked}"
        ),
        {"after": after, "upper": upper, **({"removed": REMOVED} if extra else {})},
    )
    return list(found.scalars())


def _newest_before(connection: Connection, seconds: float) -> int:
    """Return the largest id that is older than so many seconds, 0 if none is.

    Ids grow with the time, so a few looks into the primary key find it, however many rows there
    are.
    """
    low, high = (
        0,
        connection.execute(
            text("SELECT COALESCE(max(id), 0) FROM communication_message")
        ).scalar_one(),
    )
    ask = text(
        f"SELECT id, {dialect_of(connection).since('created_at')} AS age FROM communication_message"
        " WHERE id >= :id ORDER BY id LIMIT 1"
    )
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute(ask, {"id": middle}).one()
        if row.age > seconds:
            low = max(middle, int(row.id))
        else:
            high = middle - 1
    return low


def _strip(connection: Connection, ids: list[int]) -> None:
    rows = {"ids": json.dumps(ids), "removed": REMOVED}
    these = _ids(dialect_of(connection))
    # To SQLite JSON is text, and a cast to it would make a number.
    as_json = (
        "CAST(:removed AS json)" if dialect_of(connection).name == "postgresql" else ":removed"
    )
    connection.execute(
        text(
            f"UPDATE communication_message SET body = '', meta = NULL, extra = {as_json} WHERE id "
            f"IN {these}"
        ),
        rows,
    )
    connection.execute(
        text(
            "UPDATE communication_mail SET html = NULL, raw_sha256 = NULL WHERE message_id IN "
            f"{these}"
        ),
        rows,
    )
    connection.execute(
        text(f"DELETE FROM communication_attachment WHERE message_id IN {these}"), rows
    )


def delete(connection: Connection, ids: list[int]) -> None:
    """Delete messages with all that belongs to them."""
    # Attempts, events, mails, recipients and attachments go with their message.
    connection.execute(
        text(f"DELETE FROM communication_message WHERE id IN {_ids(dialect_of(connection))}"),
        {"ids": json.dumps(ids)},
    )


def _ids(dialect: Dialect) -> str:
    if dialect.name == "postgresql":
        return "(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:ids AS json)))"
    return "(SELECT value FROM json_each(:ids))"


def steps(state: State, what: str, step: Step) -> Iterator[tuple[str, int]]:
    """Do one step after the other, each in a transaction of its own, until there is nothing left to do."""
    while True:
        try:
            with state.database.write() as connection:
                done = step(connection)
        except IntegrityError:
            return  # a new message took up a file in this very moment; the next sweep looks again
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
    """Delete files that no email has carried for a day; return how many."""
    return connection.execute(
        text(
            "DELETE FROM communication_file WHERE sha256 IN (SELECT f.sha256 FROM "
            "communication_file AS f WHERE NOT EXISTS (SELECT 1 FROM communication_attachment AS "
            "a WHERE a.sha256 = f.sha256) AND NOT EXISTS (SELECT 1 FROM communication_mail AS m "
            f"WHERE m.raw_sha256 = f.sha256) AND {dialect_of(connection).since('f.created_at')} > "
            f":age LIMIT {BATCH})"
        ),
        {"age": DAY},
    ).rowcount
