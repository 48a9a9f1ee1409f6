"""Delivery reports: ask for them when they are due, keep them as events, apply what is news."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Row, TextClause, text
from sqlalchemy.engine import Connection

from ..configs.routes import Route, Routes
from ..configs.state import State
from ..errors import ProviderError
from ..formats.text import clean
from ..providers.base import Report
from ..storage import events
from ..storage.crashpoints import crash_point
from ..storage.dialect import Dialect, as_rows, dialect_of
from ..storage.models import ANY_PRIORITY
from ..storage.models.status import FINAL, RANK, REPORTED, THRESHOLD
from .channel import Channel, channel_of
from .outbox import LEASE

log = logging.getLogger(__name__)

# One request asks for so many reports.
ASK_AT_ONCE = 200
# A message is asked about whenever it has become twice as old, for so long (GOV.UK Notify waits the
# same 72 hours); then it stays `sent`: silence is not a failure.
ASK_FOR = 72 * 3600.0
LOOK_EVERY = 0.5
# A message that is not in a final status is asked about again after so many seconds.
ASK_AGAIN = 60.0

# A provider's id, a status, and the recipient it is about, if it is about one.
_Told = tuple[str, str, str | None]


class SyncResult(NamedTuple):
    """How many messages were asked about, how many of them moved, and how many are still open."""

    asked: int
    updated: int
    open: int


@dataclass(frozen=True)
class Silent:
    """A message without a final report."""

    id: int
    channel: str
    config_id: int
    provider_ref: str
    age: float | None


@dataclass(frozen=True)
class ReportRow:
    """A report as it is applied to messages: ``rank`` is its status's."""

    config_id: int
    ref: str
    status: str
    rank: int
    delay: float | None
    detail: str | None
    code: str | None


@dataclass(frozen=True)
class NextAsk:
    """When a message is asked about next; a ``delay`` of None is never."""

    id: int
    delay: float | None


@dataclass(frozen=True)
class Answer:
    """What a provider said about these messages; no ``reports`` if it could not be asked."""

    channel: Channel
    route: Route | None
    messages: Sequence[Silent]
    reports: Sequence[Report] = ()


def ask(channel: Channel, route: Route | None, messages: Sequence[Silent]) -> Answer:
    """Ask a provider about its messages; never raises."""
    if route is None or route.provider is None:
        return Answer(channel, route, messages)
    try:
        with route.guarded():
            refs = [one.provider_ref for one in messages]
            found = channel.fetch_reports(route.provider, refs, route.config)
        crash_point("ask.answered")
        return Answer(channel, route, messages, list(found))
    except ProviderError as failure:
        log.info("no delivery reports from configuration %s: %s", route.config_id, failure.reason)
    except Exception:
        log.exception("configuration %s failed to give delivery reports", route.config_id)
    return Answer(channel, route, messages)


class Asker:
    """Finds the messages whose report is due, and makes the requests that ask for them."""

    def __init__(self, state: State, routes: Routes) -> None:
        self._state = state
        self._routes = routes
        self._looked = float("-inf")

    def due(self, slots: int) -> list[Callable[[], Answer]]:
        """Return up to ``slots`` requests to make, each of which returns an :class:`Answer`."""
        if slots <= 0 or time.monotonic() - self._looked < LOOK_EVERY:
            return []
        with self._state.database.write() as connection:
            messages = _claim(connection, slots * ASK_AT_ONCE)
            routes = self._routes.load(connection, {one.config_id for one in messages})
        crash_point("ask.claimed", messages)
        if not messages:
            self._looked = time.monotonic()
        return [_asking(*group) for group in _groups(self._state, messages, routes)]


def _asking(
    channel: Channel, route: Route | None, messages: Sequence[Silent]
) -> Callable[[], Answer]:
    return lambda: ask(channel, route, messages)


def _groups(
    state: State, messages: Iterable[Silent], routes: dict[int, Route]
) -> list[tuple[Channel, Route | None, list[Silent]]]:
    by_config: dict[tuple[int, str], list[Silent]] = defaultdict(list)
    for one in messages:
        if one.channel in state.channels:
            by_config[one.config_id, one.channel].append(one)
    return [
        (channel_of(state, channel), routes.get(config_id), mine[first : first + ASK_AT_ONCE])
        for (config_id, channel), mine in by_config.items()
        for first in range(0, len(mine), ASK_AT_ONCE)
    ]


def land(connection: Connection, answer: Answer) -> list[Row[Any]]:
    """Keep and apply what was said, and set when to ask again; return the messages that moved."""
    moved: list[Row[Any]] = []
    if answer.route is not None:
        moved = apply(connection, answer.channel, answer.route.config_id, answer.reports)
    over = {one.id for one in moved if one.status in FINAL}
    again = [_next(one, answer.route) for one in answer.messages if one.id not in over]
    if again:
        connection.execute(_ask_again(dialect_of(connection)), {"rows": as_rows(again)})
    crash_point("land.written")
    return moved


def _next(message: Silent, route: Route | None) -> NextAsk:
    age = message.age or 0.0
    first = route.report_after if route else ASK_AGAIN
    return NextAsk(message.id, None if age >= ASK_FOR else max(first, age))


def apply(
    connection: Connection, channel: Channel, config_id: int, found: Sequence[Report]
) -> list[Row[Any]]:
    """Keep every report as an event and apply those that are news; return the messages that moved.

    A report that says less than the message already knows changes nothing.
    """
    known = [report for report in found if report.status in REPORTED]
    single = [one for one in known if one.recipient is not None]
    applied = channel.apply_reports(connection, config_id, single)
    best: dict[str, Report] = {}
    whole = [*(one for one in known if one.recipient is None), *applied.follows]
    for report in sorted(whole, key=lambda one: RANK[one.status]):
        best[report.ref] = report
    moved = _report(connection, [_row(config_id, report) for report in best.values()])
    _warn_of_shared_ids(config_id, moved)
    told: set[_Told] = {(row.provider_ref, row.status, None) for row in moved}
    told |= {(one.ref, one.status, one.recipient) for one in applied.news}
    events.store(connection, [_event(config_id, one, told) for one in known])
    channel.learn_from_reports(connection, config_id, found)
    return moved


def _warn_of_shared_ids(config_id: int, moved: Sequence[Row[Any]]) -> None:
    for ref, count in Counter(row.provider_ref for row in moved).items():
        if count > 1:
            log.warning(
                "configuration %s: the provider calls %s messages by one id, %s; a report of one "
                "moved all",
                config_id,
                count,
                clean(ref, 50),
            )


def _row(config_id: int, report: Report) -> ReportRow:
    return ReportRow(
        config_id,
        report.ref,
        report.status,
        RANK[report.status],
        None if report.status in FINAL else ASK_AGAIN,
        clean(report.detail) if report.detail else None,
        clean(report.code, 50) if report.code else None,
    )


def _event(config_id: int, report: Report, applied: set[_Told]) -> dict[str, Any]:
    told = report.event_id or f"{report.ref}:{report.status}:{report.code}:{report.recipient or ''}"
    about = f"{report.recipient}: " if report.recipient else ""
    return {
        "config_id": config_id,
        "kind": "report",
        "status": report.status,
        "ref": report.ref,
        "dedupe_key": events.fingerprint(config_id, told),
        "detail": clean(about + (report.detail or "")) or None,
        "code": report.code and clean(report.code, 50),
        "occurred_at": report.occurred_at,
        "applied": (report.ref, report.status, report.recipient) in applied,
    }


def sync(
    state: State, channel: Channel, progress: Callable[[int], None] = lambda _asked: None
) -> tuple[SyncResult, list[Row[Any]]]:
    """Ask now about every message of a channel without a final report; also return who moved."""
    routes, asked, last = Routes(state), 0, 0
    moved: list[Row[Any]] = []
    while messages := _silent(state, channel.name, last):
        last, asked = messages[-1].id, asked + len(messages)
        with state.database.read() as connection:
            known = routes.load(connection, {one.config_id for one in messages})
        for group in _groups(state, messages, known):
            answer = ask(*group)
            with state.database.write() as connection:
                moved += land(connection, answer)
        progress(asked)
    return SyncResult(asked, len({row.id for row in moved}), asked - _ended(moved)), moved


def _ended(moved: Sequence[Row[Any]]) -> int:
    return len({row.id for row in moved if row.status in FINAL})


# --- SQL

_SILENT = "id, channel, config_id, provider_ref, {age} AS age"


def _silent(state: State, channel: str, after: int) -> list[Silent]:
    with state.database.read() as connection:
        columns = _SILENT.format(age=dialect_of(connection).since("sent_at"))
        found = connection.execute(
            text(
                f"SELECT {columns} FROM communication_message"
                " WHERE channel = :channel AND status IN ('sent', 'unknown')"
                " AND provider_ref IS NOT NULL AND id > :after ORDER BY id LIMIT 1000"
            ),
            {"channel": channel, "after": after},
        )
        return [Silent(*row) for row in found]


def _claim(connection: Connection, limit: int, lease: float = LEASE) -> list[Silent]:
    """Claim up to ``limit`` messages whose delivery report is due to be asked for."""
    given = {"limit": limit, "lease": lease}
    found = connection.execute(_claim_sql(dialect_of(connection)), given)
    return [Silent(*row) for row in found]


@cache
def _claim_sql(dialect: Dialect) -> TextClause:
    return text(
        f"UPDATE communication_message SET due_at = {dialect.later(':lease')} WHERE id IN ("
        "SELECT id FROM communication_message WHERE status IN ('sent', 'unknown')"
        f" AND {ANY_PRIORITY} AND due_at <= {dialect.now} LIMIT :limit"
        f" {dialect.skip_locked}) RETURNING {_SILENT.format(age=dialect.since('sent_at'))}"
    )


@cache
def _ask_again(dialect: Dialect) -> TextClause:
    return text(
        f"UPDATE communication_message AS m SET due_at = {dialect.later('r.delay')}"
        f" FROM {dialect.rows(NextAsk)} AS r WHERE {dialect.chosen('m.id')}m.id = r.id"
        " AND m.status || '' IN ('sent', 'unknown')"
    )


def _report(connection: Connection, rows: Sequence[ReportRow]) -> list[Row[Any]]:
    """Apply reports, one for each provider id; return the messages they moved."""
    if not rows:
        return []
    sql = _report_sql(dialect_of(connection))
    return list(connection.execute(sql, {"rows": as_rows(rows)}).all())


@cache
def _report_sql(dialect: Dialect) -> TextClause:
    threshold = " ".join(f"WHEN '{status}' THEN {rank}" for status, rank in THRESHOLD.items())
    return text(
        "UPDATE communication_message AS m SET status = r.status, repeat_until = NULL,"
        f" due_at = {dialect.later('r.delay')}, error = CASE WHEN r.status = 'undelivered'"
        " THEN COALESCE(r.detail, m.error) ELSE NULL END,"
        " error_code = CASE WHEN r.status = 'undelivered' THEN r.code ELSE NULL END,"
        f" updated_at = {dialect.now} FROM {dialect.rows(ReportRow)} AS r"
        " WHERE m.config_id = r.config_id AND m.provider_ref = r.ref"
        f" AND r.rank >= CASE m.status {threshold} END"
        + dialect.returning("id", "uuid", "channel", "status", "config_id", "provider_ref")
    )
