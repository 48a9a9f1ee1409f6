"""The suppression list: recipients to whom nothing is sent, by which sender, and why.

A suppression holds for every sender (scope ""), for one sender ("sender:…"), or for one
configuration ("config:…"). A message belongs to its sender; the configuration stands for the sender
only of a message that has none, so that two brands that share a configuration cannot silence each
other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from sqlalchemy import TextClause, delete, select, text
from sqlalchemy.engine import Connection

from ...configs.routes import find_config
from ...configs.state import State
from ...errors import ConfigNotFound, InvalidQuery, SuppressionNotFound
from ...formats.numbers import candidates, compacted
from ...formats.text import clean
from ...providers.base import ProviderError, Refused, Report
from ...storage.dialect import Dialect, as_rows, dialect_of
from ...storage.messages import MOST_A_PAGE
from ...storage.models import Suppression

REASONS = ("stop", "opted_out", "bounce", "complaint", "manual")
# Reasons that a START of the recipient lifts; the others only an operator can.
BY_RECIPIENT = ("stop", "opted_out")
ANYBODY = ""
LARGEST_ID = 2**31
REMEDY = "unsuppress it first, if you may"

# Return the scope of a sender, or of the configuration that stands for it.
Scope = Callable[[str | None, int | None], str]


class Suppressed(NamedTuple):
    """A page of suppressions, newest first.

    ``next`` is the cursor of the next page, None at the end: pass it as ``after``.
    """

    items: list[Suppression]
    next: str | None


@dataclass(frozen=True)
class Asked:
    """A claimed message, and the scopes in which its recipient may be suppressed."""

    id: int
    channel: str
    destination: str
    scope: str
    asked_for: str


@dataclass(frozen=True)
class NewSuppression:
    """A suppression to store."""

    channel: str
    destination: str
    scope: str
    reason: str
    detail: str | None


def sender_scope(sender: str) -> str:
    """Return the scope of one sender, however its number is spaced or its name capitalised."""
    compact = compacted(sender)
    return f"sender:{compact if re.fullmatch(r'[+]?[0-9]+', compact) else sender.lower()[:320]}"


def config_scope(config_id: int | None) -> str:
    """Return the scope of the messages of a configuration that have no sender of their own."""
    return f"config:{config_id}"


def find(connection: Connection, asked: Sequence[Asked]) -> dict[int, str]:
    """Return which claimed messages must not be sent: id -> the reason, for a person."""
    if not asked:
        return {}
    found = connection.execute(_find(dialect_of(connection)), {"rows": as_rows(asked)})
    return {row.id: _why(row.scope, row.reason) for row in found}


def _why(scope: str, reason: str) -> str:
    by = f"for {scope}" if scope else "for every sender"
    return f"the recipient is suppressed {by} ({reason}); {REMEDY}"


@cache
def _find(dialect: Dialect) -> TextClause:
    return text(
        f"SELECT r.id, s.scope, s.reason FROM {dialect.rows(Asked)} AS r JOIN"
        " communication_suppression AS s ON s.channel = r.channel AND s.destination ="
        " r.destination AND s.scope IN ('', r.scope, r.asked_for)"
    )


def store(connection: Connection, rows: Iterable[NewSuppression]) -> None:
    """Store suppressions, each once; an answer of the recipient weakens no operator's reason."""
    once = {(row.channel, row.destination, row.scope): row for row in rows}
    if once:
        # In one order, so that two workers that store the same rows never wait for each other.
        given = as_rows([once[key] for key in sorted(once)])
        connection.execute(_store(dialect_of(connection)), {"rows": given})


@cache
def _store(dialect: Dialect) -> TextClause:
    theirs = ", ".join(f"'{reason}'" for reason in BY_RECIPIENT)
    return text(
        "INSERT INTO communication_suppression (channel, destination, scope, reason, detail, "
        f"created_at) SELECT r.channel, r.destination, r.scope, r.reason, r.detail, {dialect.now} "
        f"FROM {dialect.rows(NewSuppression)} AS r WHERE true"
        " ON CONFLICT (channel, destination, scope) DO "
        "UPDATE SET reason = excluded.reason, detail = excluded.detail WHERE excluded.reason NOT "
        f"IN ({theirs})"
    )


def opted_out(said: object) -> bool:
    """Tell whether a provider's answer, or report, says that the recipient opted out."""
    return isinstance(said, Refused | Report) and said.opted_out


def detail_of(said: object) -> str | None:
    """Return the words of a provider's answer, or report, for the list."""
    words = said.reason if isinstance(said, ProviderError) else getattr(said, "detail", None)
    return clean(words) if words else None


def learn_from_reports(
    connection: Connection, config_id: int, reports: Sequence[Report], scope: Scope
) -> None:
    """Suppress the recipients of whom delivery reports of a configuration say they opted out."""
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
        ),
        {"config_id": config_id, "rows": as_rows([{"ref": ref} for ref in told])},
    )
    store(
        connection,
        [
            NewSuppression(
                row.channel,
                row.destination,
                scope(row.sender, row.config_id),
                "opted_out",
                detail_of(told[row.provider_ref]),
            )
            for row in rows
        ],
    )


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
    by: str | int | None,
    scope: str | None = None,
    reason: str = "manual",
    detail: str | None = None,
) -> None:
    """Put a recipient on the list.

    ``scope`` is that of one sender, ``by`` the key or id of a configuration; with neither it holds
    for every sender. Raises :class:`InvalidQuery` and :class:`ConfigNotFound`.
    """
    if reason not in REASONS:
        raise InvalidQuery({"reason": [f"must be one of {', '.join(REASONS)}"]})
    with state.database.write() as connection:
        where = _scope_of(connection, channel, scope, by)
        row = NewSuppression(channel, destination, where, reason, detail and clean(detail))
        store(connection, [row])


def unsuppress(
    state: State,
    channel: str,
    destination: str,
    by: str | int | None,
    scope: str | None = None,
) -> None:
    """Take a recipient off the list in exactly this scope.

    Raises :class:`SuppressionNotFound`, which lists the scopes in which it is suppressed, and what
    :func:`suppress` raises.
    """
    ours = (Suppression.channel == channel, Suppression.destination == destination)
    with state.database.write() as connection:
        where = _scope_of(connection, channel, scope, by)
        gone = connection.execute(delete(Suppression).where(*ours, Suppression.scope == where))
        if not gone.rowcount:
            others = connection.scalars(
                select(Suppression.scope).where(*ours).order_by(Suppression.scope)
            )
            raise SuppressionNotFound(_elsewhere(destination, where, list(others)))


def _elsewhere(destination: str, scope: str, others: Sequence[str]) -> str:
    said = f"{destination} is not suppressed for {scope or 'every sender'}"
    return said + (
        f", but for {', '.join(one or 'every sender' for one in others)}" if others else ""
    )


def _scope_of(
    connection: Connection, channel: str, scope: str | None, key: str | int | None
) -> str:
    if scope is not None and key is not None:
        raise InvalidQuery({"key": ["give a sender or a key, not both"]})
    if scope is not None:
        return scope
    if key is None:
        return ANYBODY
    found = find_config(connection, channel, key)
    if found is None:
        raise ConfigNotFound(f"no {channel} configuration has the key or id {str(key)!r}")
    return config_scope(found.id)


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
    if channel is not None and channel not in state.channel_names:
        raise InvalidQuery({"channel": [f"must be one of {', '.join(state.channel_names)}"]})
    region = state.settings.default_region
    conditions = [
        channel is not None and Suppression.channel == channel,
        destination is not None and Suppression.destination.in_(candidates(destination, region)),
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
