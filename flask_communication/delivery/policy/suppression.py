"""Who must not be written to, by whom, and why.

A suppression holds for anybody (scope ""), for one sender ("sender:…"), or for one configuration
("config:…"). A message is somebody's by its sender; the configuration stands for the sender only of
a message that has none, so that two brands that share a configuration cannot silence each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Row, String, TextClause, bindparam, case, cast, delete, or_, select, text
from sqlalchemy.engine import Connection

from ...configs.settings import CHANNELS
from ...configs.state import State
from ...errors import ConfigNotFound, InvalidQuery, SuppressionNotFound
from ...formats.addresses import bare
from ...formats.numbers import meant
from ...formats.text import clean
from ...providers.base import ProviderError, Refused, Report
from ...storage.dialect import Dialect, as_rows, dialect_of
from ...storage.messages import MOST_A_PAGE
from ...storage.models import Config, Suppression
from ...storage.models.status import REJECTED, REPORTED, SENT

REASONS = ("stop", "opted_out", "bounce", "complaint", "manual")
# What the recipient said it can take back by an answer; what a person put down, only a person.
BY_RECIPIENT = ("stop", "opted_out")
ANYBODY = ""
TAKEN_OUT = "suppressed"
LARGEST_ID = 2**31
_REMEDY = "unsuppress it first, if you may"
_PUNCTUATION = re.compile(r"[\s().\-\u00a0]+")
_ROWS = {
    "channel": "text",
    "destination": "text",
    "scope": "text",
    "reason": "text",
    "detail": "text",
}
_ASKING = {
    "id": "bigint",
    "channel": "text",
    "destination": "text",
    "scope": "text",
    "asked_for": "text",
}
_MAILING = {"id": "bigint", "scope": "text", "asked_for": "text"}

# A message, the configuration by which it went, and what its provider said.
Answer = tuple[Row[Any], int | None, object]


class Suppressed(NamedTuple):
    """Suppressions, newest first, and the cursor of the next page: pass it as ``after``.

    None at the end.
    """

    items: list[Suppression]
    next: str | None


def sender_scope(sender: str) -> str:
    """Return the scope of one sender, however its number is spaced or its name capitalised."""
    compact = _PUNCTUATION.sub("", sender)
    return f"sender:{compact if re.fullmatch(r'[+]?[0-9]+', compact) else sender.lower()[:320]}"


def config_scope(config_id: int | None) -> str:
    """Return the scope of the messages of a configuration that have no sender of their own."""
    return f"config:{config_id}"


def _scope(sender: str | None, config_id: int | None) -> str:
    return sender_scope(sender) if sender else config_scope(config_id)


def find(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, str]:
    """Return which claimed messages must not be sent: id -> why, for a person."""
    asked = [
        {
            "id": row.id,
            "channel": row.channel,
            "destination": row.destination,
            "scope": _scope(row.sender, row.config_id),
            # A fallback that sends in its place sends on its behalf.
            "asked_for": _scope(row.sender, row.route_id),
        }
        for row in rows
    ]
    if not asked:
        return {}
    found = connection.execute(_find(dialect_of(connection)), {"rows": as_rows(asked)})
    return {row.id: _why(row) for row in found}


def foresee(connection: Connection, row: Row[Any]) -> str | None:
    """Return why a message, or an email's recipient, would not be written to now, if so."""
    scope = mail_scope if row.channel == "email" else _scope
    asked = {"id": row.id, "channel": row.channel, "destination": row.destination}
    if row.channel == "email":
        asked["destination"] = row.destination.lower()
    asked["scope"] = asked["asked_for"] = scope(row.sender, row.config_id)
    found = connection.execute(_find(dialect_of(connection)), {"rows": as_rows([asked])}).first()
    return None if found is None else _why(found)


def _why(row: Row[Any]) -> str:
    by = f"for {row.scope}" if row.scope else "for every sender"
    return f"the recipient is suppressed {by} ({row.reason}); {_REMEDY}"


@cache
def _find(dialect: Dialect) -> TextClause:
    return text(
        f"SELECT r.id, s.scope, s.reason FROM {dialect.rows(_ASKING)} AS r JOIN"
        " communication_suppression AS s ON s.channel = r.channel AND s.destination ="
        " r.destination AND s.scope IN ('', r.scope, r.asked_for)"
    )


def find_mailed(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, tuple[str, str]]:
    """Take suppressed recipients out of claimed emails; return those that have nobody left.

    They come as id -> (status, why). Each recipient that is taken out is ``rejected``, and says
    why.
    """
    asked = [
        {
            "id": row.id,
            "scope": mail_scope(row.sender, row.config_id),
            "asked_for": mail_scope(row.sender, row.route_id),
        }
        for row in rows
    ]
    if not asked:
        return {}
    taken = connection.scalars(_take_out(dialect_of(connection)), {"rows": as_rows(asked)}).all()
    if not taken:
        return {}
    states: dict[int, list[Row[Any]]] = {}
    for person in connection.execute(_MAILED, {"ids": sorted(set(taken))}):
        states.setdefault(person.message_id, []).append(person)
    return {
        one: _nobody_left(people)
        for one, people in states.items()
        if all(person.status is not None for person in people)
    }


def _nobody_left(people: Sequence[Row[Any]]) -> tuple[str, str]:
    why = next(person.error for person in people if person.error_code == TAKEN_OUT)
    return (SENT if any(person.status in REPORTED for person in people) else REJECTED), why


_MAILED = text(
    "SELECT message_id, status, error, error_code FROM communication_recipient WHERE message_id IN "
    ":ids"
).bindparams(bindparam("ids", expanding=True))


@cache
def _take_out(dialect: Dialect) -> TextClause:
    by = "CASE WHEN s.scope = '' THEN 'every sender' ELSE s.scope END"
    why = f"'the recipient is suppressed for ' || {by} || ' (' || s.reason || '); {_REMEDY}'"
    prefix = "p." if dialect.name == "postgresql" else ""
    return text(
        f"UPDATE communication_recipient AS p SET status = '{REJECTED}', error_code = "
        f"'{TAKEN_OUT}', error = {why} FROM {dialect.rows(_MAILING)} AS r, "
        "communication_suppression AS s WHERE p.message_id = r.id AND p.status IS NULL AND "
        "s.channel = 'email' AND s.destination = lower(p.address) AND s.scope IN ('', r.scope, "
        f"r.asked_for) RETURNING {prefix}message_id"
    )


def mail_scope(sender: str | None, config_id: int | None) -> str:
    """Return the scope of an email: its sender's address, or the configuration that stands for it."""
    return f"sender:{bare(sender).lower()[:320]}" if sender else config_scope(config_id)


def store(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Keep suppressions (see ``_ROWS``), each once.

    What a person put down is not weakened by an answer.
    """
    once = {(row["channel"], row["destination"], row["scope"]): row for row in rows}
    if once:
        # In one order, so that two who store the same rows never wait for each other.
        given = as_rows([once[key] for key in sorted(once)])
        connection.execute(_store(dialect_of(connection)), {"rows": given})


@cache
def _store(dialect: Dialect) -> TextClause:
    theirs = ", ".join(f"'{reason}'" for reason in BY_RECIPIENT)
    return text(
        "INSERT INTO communication_suppression (channel, destination, scope, reason, detail, "
        f"created_at) SELECT r.channel, r.destination, r.scope, r.reason, r.detail, {dialect.now} "
        f"FROM {dialect.rows(_ROWS)} AS r WHERE true ON CONFLICT (channel, destination, scope) DO "
        "UPDATE SET reason = excluded.reason, detail = excluded.detail WHERE excluded.reason NOT "
        f"IN ({theirs})"
    )


def learn(connection: Connection, told: Iterable[Answer]) -> None:
    """Keep what providers said of recipients; what does not say ``opted_out`` costs no SQL."""
    store(
        connection,
        [
            {
                "channel": row.channel,
                "destination": row.destination,
                "scope": _scope(row.sender, config_id),
                "reason": "opted_out",
                "detail": _detail(said),
            }
            for row, config_id, said in told
            if isinstance(said, Refused | Report) and said.opted_out
        ],
    )


def _detail(said: ProviderError | Report) -> str | None:
    words = said.reason if isinstance(said, ProviderError) else said.detail
    return clean(words) if words else None


def learn_from_reports(connection: Connection, config_id: int, reports: Sequence[Report]) -> None:
    """Keep what delivery reports of a configuration's messages said of recipients."""
    # What is said of one of an email's recipients is not said of the message.
    told = {
        report.ref: report for report in reports if report.opted_out and report.recipient is None
    }
    if not told:
        return
    dialect = dialect_of(connection)
    rows = connection.execute(
        text(
            "SELECT m.provider_ref, m.channel, m.destination, m.sender, m.config_id"
            f" FROM {dialect.rows({'ref': 'text'})} AS r JOIN communication_message AS m"
            " ON m.config_id = :config_id AND m.provider_ref = r.ref WHERE m.direction = 'out'"
            " AND m.channel <> 'email'"
        ),
        {"config_id": config_id, "rows": as_rows([{"ref": ref} for ref in told])},
    )
    learn(connection, [(row, row.config_id, told[row.provider_ref]) for row in rows])


def lift(connection: Connection, channel: str, destination: str, scopes: Iterable[str]) -> None:
    """Drop what the recipient itself had asked for, in these scopes."""
    connection.execute(
        delete(Suppression).where(
            Suppression.channel == channel,
            Suppression.destination == destination,
            Suppression.scope.in_(list(scopes)),
            Suppression.reason.in_(BY_RECIPIENT),
        )
    )


def suppress(
    state: State,
    channel: str,
    destination: str,
    sender: str | None = None,
    key: str | int | None = None,
    reason: str = "manual",
    detail: str | None = None,
) -> None:
    """Put a recipient on the list, for anybody, one sender, or one configuration; twice is once.

    Raises :class:`InvalidQuery` and :class:`ConfigNotFound`.
    """
    if reason not in REASONS:
        raise InvalidQuery({"reason": [f"must be one of {', '.join(REASONS)}"]})
    with state.database.write() as connection:
        row = {"channel": channel, "destination": destination, "reason": reason}
        scope = _named(connection, channel, sender, key)
        store(connection, [{**row, "scope": scope, "detail": detail and clean(detail)}])


def unsuppress(
    state: State,
    channel: str,
    destination: str,
    sender: str | None = None,
    key: str | int | None = None,
) -> None:
    """Take a recipient off the list in exactly this scope.

    Raises :class:`SuppressionNotFound`, which says in which scopes it is, and what :func:`suppress`
    does.
    """
    ours = (Suppression.channel == channel, Suppression.destination == destination)
    with state.database.write() as connection:
        scope = _named(connection, channel, sender, key)
        gone = connection.execute(delete(Suppression).where(*ours, Suppression.scope == scope))
        if not gone.rowcount:
            others = connection.scalars(
                select(Suppression.scope).where(*ours).order_by(Suppression.scope)
            )
            raise SuppressionNotFound(_elsewhere(destination, scope, list(others)))


def _elsewhere(destination: str, scope: str, others: Sequence[str]) -> str:
    said = f"{destination} is not suppressed for {scope or 'every sender'}"
    return said + (
        f", but for {', '.join(one or 'every sender' for one in others)}" if others else ""
    )


def _named(connection: Connection, channel: str, sender: str | None, key: str | int | None) -> str:
    if sender is not None and key is not None:
        raise InvalidQuery({"key": ["give a sender or a key, not both"]})
    if sender is not None:
        return mail_scope(sender, None) if channel == "email" else sender_scope(sender)
    if key is None:
        return ANYBODY
    config_id = config_of(connection, channel, key)
    if config_id is None:
        raise ConfigNotFound(f"no {channel} configuration has the key or id {str(key)!r}")
    return config_scope(config_id)


def config_of(connection: Connection, channel: str, key: str | int | None) -> int | None:
    """Return the configuration that a key or id names (None: the default one), also a disabled one."""
    wanted = select(Config.id).where(Config.type == channel, Config.deleted_at.is_(None))
    if key is None:
        wanted = wanted.where(Config.is_default)
    else:
        named = Config.key == str(key)
        wanted = wanted.where(or_(named, cast(Config.id, String) == str(key)))
        wanted = wanted.order_by(case((named, 0), else_=1)).limit(1)
    found: int | None = connection.scalar(wanted)
    return found


def page(
    state: State,
    channel: str | None = None,
    destination: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Suppressed:
    """Return a page of the list, newest first; see :class:`Suppressed`.

    Raises :class:`InvalidQuery`.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_A_PAGE:
        raise InvalidQuery({"limit": [f"must be a whole number from 1 to {MOST_A_PAGE}"]})
    if channel is not None and channel not in CHANNELS:
        raise InvalidQuery({"channel": [f"must be one of {', '.join(CHANNELS)}"]})
    region = state.settings.default_region
    conditions = [
        channel is not None and Suppression.channel == channel,
        destination is not None and Suppression.destination.in_(meant(destination, region)),
        after is not None and Suppression.id < _cursor(after),
    ]
    wanted = select(Suppression).where(*(one for one in conditions if one is not False))
    with state.database.session() as session:
        found = list(session.scalars(wanted.order_by(Suppression.id.desc()).limit(limit + 1)))
    return Suppressed(found[:limit], str(found[limit - 1].id) if len(found) > limit else None)


def _cursor(after: str) -> int:
    """Return the id at which the page before ended.

    Raise :class:`InvalidQuery` for anything else.
    """
    text = str(after)
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) < LARGEST_ID):
        raise InvalidQuery({"after": ["must be the `next` of an earlier page"]})
    return int(text)
