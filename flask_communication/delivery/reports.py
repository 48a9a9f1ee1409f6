"""Delivery reports: asked for when they are due, or now; kept as events.

Applied if they are news.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Row, text
from sqlalchemy.engine import Connection

from ..configs.routes import Route, Routes
from ..configs.state import State
from ..email import records
from ..errors import ProviderError
from ..formats.text import clean
from ..providers.base import Report
from ..storage import events
from ..storage.crashpoints import crash_point
from ..storage.dialect import dialect_of
from ..storage.models.status import FINAL, RANK, REPORTED
from . import awaiting
from .policy import suppression

log = logging.getLogger(__name__)

# One call asks for so many reports.
ASK_AT_ONCE = 200
# A message is asked about whenever it has become twice as old, for so long (GOV.UK Notify waits the
# same 72 hours); then it stays `sent`: silence is not a failure.
ASK_FOR = 72 * 3600.0
LOOK_EVERY = 0.5

# A provider's id, a status, and the recipient it is about, if it is about one.
_Told = tuple[str, str, str | None]


class SyncResult(NamedTuple):
    """How many messages were asked about, how many of them moved, and how many are still open."""

    asked: int
    updated: int
    open: int


@dataclass(frozen=True)
class Answer:
    """What a provider said about these messages; ``failed`` if it said nothing."""

    route: Route | None
    rows: Sequence[Row[Any]]
    reports: Sequence[Report] = field(default=())
    failed: bool = False


def ask(route: Route | None, rows: Sequence[Row[Any]]) -> Answer:
    """Ask a provider about its messages; never raises."""
    if route is None or route.provider is None:
        return Answer(route, rows, failed=True)
    try:
        ask_for = {"sms": route.provider.sms_reports, "email": route.provider.email_reports}
        with route.dialling():
            found = ask_for[rows[0].channel]([row.provider_ref for row in rows], route.config)
        crash_point("ask.answered")
        return Answer(route, rows, list(found))
    except ProviderError as failure:
        log.info("no delivery reports from configuration %s: %s", route.config_id, failure.reason)
    except Exception:
        log.exception("configuration %s failed to give delivery reports", route.config_id)
    return Answer(route, rows, failed=True)


class Asker:
    """Finds the messages whose report is due, and makes the calls that ask for them."""

    def __init__(self, state: State, routes: Routes) -> None:
        self._state = state
        self._routes = routes
        self._looked = float("-inf")

    def due(self, slots: int) -> list[Callable[[], Answer]]:
        """Return up to ``slots`` calls to make, each of which returns an :class:`Answer`."""
        if slots <= 0 or time.monotonic() - self._looked < LOOK_EVERY:
            return []
        with self._state.database.write() as connection:
            rows = awaiting.claim_silent(connection, slots * ASK_AT_ONCE)
            routes = self._routes.load(connection, {row.config_id for row in rows})
        crash_point("ask.claimed", rows)
        if not rows:
            self._looked = time.monotonic()
        return [_asking(routes.get(config_id), group) for config_id, group in _groups(rows)]


def _asking(route: Route | None, rows: Sequence[Row[Any]]) -> Callable[[], Answer]:
    return lambda: ask(route, rows)


def _groups(rows: Iterable[Row[Any]]) -> list[tuple[int, list[Row[Any]]]]:
    by_config: dict[tuple[int, str], list[Row[Any]]] = defaultdict(list)
    for row in rows:
        by_config[row.config_id, row.channel].append(row)
    return [
        (config_id, mine[first : first + ASK_AT_ONCE])
        for (config_id, _), mine in by_config.items()
        for first in range(0, len(mine), ASK_AT_ONCE)
    ]


def land(connection: Connection, answer: Answer) -> list[Row[Any]]:
    """Keep and apply what was said, and set when to ask again; return the messages that moved."""
    moved = apply(connection, answer.route.config_id, answer.reports) if answer.route else []
    awaiting.ask_again(
        connection,
        [
            {"id": row.id, "delay": _next(row, answer.route)}
            for row in answer.rows
            if not _is_over(row, moved)
        ],
    )
    crash_point("land.written")
    return moved


def _is_over(row: Row[Any], moved: Sequence[Row[Any]]) -> bool:
    return any(one.id == row.id and one.status in FINAL for one in moved)


def _next(row: Row[Any], route: Route | None) -> float | None:
    age = row.age or 0.0
    if age >= ASK_FOR:
        return None
    first = route.provider.report_after if route and route.provider else 60.0
    return max(float(first), age)


def apply(connection: Connection, config_id: int, found: Sequence[Report]) -> list[Row[Any]]:
    """Keep every report as an event and apply those that are news.

    Return the messages that moved.
    """
    known = [report for report in found if report.status in REPORTED]
    news, follows = records.report(
        connection, config_id, [one for one in known if one.recipient is not None]
    )
    whole = [one for one in known if one.recipient is None] + follows
    best: dict[str, Report] = {}
    for report in sorted(whole, key=lambda one: RANK[one.status]):
        best[report.ref] = report
    moved = awaiting.report(connection, [_row(config_id, report) for report in best.values()])
    _warn_of_shared_ids(config_id, moved)
    applied: set[_Told] = {(row.provider_ref, row.status, None) for row in moved}
    applied |= {(one.ref, one.status, one.recipient) for one in news}
    events.store(connection, [_event(config_id, one, applied) for one in known])
    suppression.learn_from_reports(connection, config_id, found)
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


def _row(config_id: int, report: Report) -> dict[str, Any]:
    return {
        "config_id": config_id,
        "ref": report.ref,
        "status": report.status,
        "rank": RANK[report.status],
        "delay": None if report.status in FINAL else 60.0,
        "detail": report.detail and clean(report.detail),
        "code": report.code and clean(report.code, 50),
    }


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
    state: State, channel: str, progress: Callable[[int], None] = lambda asked: None
) -> tuple[SyncResult, list[Row[Any]]]:
    """Ask now about every message of ``channel`` that has no final report.

    Also return who moved.
    """
    routes, asked, last = Routes(state), 0, 0
    moved: list[Row[Any]] = []
    while rows := _silent(state, channel, last):
        last, asked = rows[-1].id, asked + len(rows)
        with state.database.read() as connection:
            known = routes.load(connection, {row.config_id for row in rows})
        for config_id, group in _groups(rows):
            answer = ask(known.get(config_id), group)
            with state.database.write() as connection:
                moved += land(connection, answer)
        progress(asked)
    return SyncResult(asked, len({row.id for row in moved}), asked - _ended(moved)), moved


def _ended(moved: Sequence[Row[Any]]) -> int:
    return len({row.id for row in moved if row.status in FINAL})


def _silent(state: State, channel: str, after: int) -> list[Row[Any]]:
    with state.database.read() as connection:
        return list(
            connection.execute(
                text(
                    "SELECT id, channel, config_id, provider_ref,"
                    f" {dialect_of(connection).since('sent_at')} AS age FROM communication_message"
                    " WHERE channel = :channel AND status IN ('sent', 'unknown')"
                    " AND provider_ref IS NOT NULL AND id > :after ORDER BY id LIMIT 1000"
                ),
                {"channel": channel, "after": after},
            )
        )
