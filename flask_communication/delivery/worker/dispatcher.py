"""Attend to due rows: choose the route, call the provider, write down how it ended."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from ...configs import breaker
from ...configs.routes import Route, Routes
from ...configs.settings import Settings
from ...configs.state import State
from ...email import records
from ...errors import DatabaseError
from ...storage.crashpoints import crash_point
from ...storage.files import Files
from ...storage.models import BULK, HIGH
from .. import outbox, plan, reports, screening
from .. import outcomes as verdicts
from ..announce import announce
from ..outcomes import Order, Verdict
from ..policy import suppression
from .rescue import rescue
from .sending import CALL_DEADLINE, Call, calling, learn

log = logging.getLogger(__name__)

CLAIM_AT_MOST = 1000
# With free slots and nothing known to wait, look for new work this often (a nudge comes at once).
LOOK_EVERY = 0.2
# While much is waiting here already, look this often for what is more urgent.
LOOK_URGENTLY = 0.05
# Of the calls at once, this share (and one at least) is kept for messages of high priority.
KEPT_FOR_HIGH = 1 / 20
RESCUE_EVERY = 5.0
# The database may be away this long before what is known about calls is given up.
SETTLE_FOR = 60.0

T = TypeVar("T")


class Written(NamedTuple):
    """What one transaction of a shift has done: who moved, may be dialled, and whose state changed."""

    moved: list[Any]
    started: set[int]
    letters: dict[int, records.Letter]
    switched: breaker.Changes
    paused: set[int]


class Shift:
    """One worker's turn: claim, dial and settle until nothing is due.

    The thread that runs the shift does all the SQL; ``pool`` threads do nothing but call providers.
    Rows are claimed, started and settled in groups whose size follows the load by itself: while one
    group is being written, calls go on ending, and they are the next group.
    """

    def __init__(
        self,
        state: State,
        routes: Routes,
        record: breaker.Record,
        pool: ThreadPoolExecutor,
        stop: Callable[[], bool],
    ) -> None:
        self.state = state
        self.pool = pool
        self.stop = stop
        self.slots = state.settings.concurrency
        self.common_slots = (
            self.slots - max(1, int(self.slots * KEPT_FOR_HIGH)) if self.slots > 1 else 1
        )
        self.routes = routes
        self.known: dict[int, Route] = {}
        self.record = record
        self.files = Files()
        self.asker = reports.Asker(state, self.routes)
        self.waiting: deque[Order] = deque()
        self.ended: SimpleQueue[Call | reports.Answer | None] = SimpleQueue()
        self.calls = 0
        self.appetite = self.slots
        self.claimed_at = time.monotonic()
        self.look_at = 0.0
        self.urgent_at = 0.0
        self.rescue_at = 0.0
        # A shift that begins with work dials it first, and lets the calls get away.
        self.tidy_at = time.monotonic() + LOOK_EVERY
        self.is_tidy = False

    def nudge(self) -> None:
        """Tell a running shift that there is new work; safe from any thread."""
        self.ended.put(None)

    def run(self) -> int:
        """Work until nothing is due, or ``stop()`` says so.

        Return how many messages were dialled.
        """
        dialled = 0
        while True:
            self._look()
            dialled += self._turn(self._gather())
            if self.is_tidy and self._is_idle():
                return dialled

    def _is_idle(self) -> bool:
        return not self.calls and not self.waiting

    def _look(self) -> None:
        if self.stop():
            self._put_back()
            self.is_tidy = True
            return
        try:
            self._take()
        except (OperationalError, DatabaseError):
            if not self.calls:
                raise
            # What the calls under way will tell us matters more: go on, and look again later.
            log.warning("cannot look for work now", exc_info=True)
            self.look_at = self.rescue_at = time.monotonic() + RESCUE_EVERY

    def _take(self) -> None:
        now = time.monotonic()
        if len(self.waiting) < self.slots and now >= self.look_at:
            self._claim()
        elif self.waiting and now >= self.urgent_at:
            self._claim_urgent(now)
        if now >= self.tidy_at or self._is_idle():
            self._tidy(now)

    def _tidy(self, now: float) -> None:
        """Move on what stopped workers have left, and ask for reports."""
        if now >= self.rescue_at:
            rescue(self.state, self.routes, self.pool)
            self.rescue_at = now + RESCUE_EVERY
        for asking in self.asker.due(self.slots - self.calls):
            self._dial(asking)
        self.is_tidy = True

    def _claim(self) -> None:
        """Claim what is dialled before the next look.

        The rest is left to others, who may be idle.
        """
        claimed = self._take_up(self.appetite)
        now = time.monotonic()
        lasted, self.claimed_at = now - self.claimed_at, now
        if claimed < self.appetite:
            self.appetite, self.look_at = self.slots, now + LOOK_EVERY
        elif lasted < LOOK_EVERY:
            self.appetite = min(CLAIM_AT_MOST, self.appetite * 2)
        elif lasted > 3 * LOOK_EVERY:
            self.appetite = max(self.slots, self.appetite // 2)

    def _claim_urgent(self, now: float) -> None:
        """Take what must not wait behind what was taken already."""
        least = self.waiting[-1].row.priority
        if least > HIGH:
            self._take_up(self.slots, before=least)
        self.urgent_at = now + LOOK_URGENTLY

    def _take_up(self, limit: int, before: int = BULK + 1) -> int:
        """Claim messages, put off those that cannot go now, and keep the others, the urgent ones first."""
        with self.state.database.write() as connection:
            rows = outbox.claim(connection, limit, before=before)
            if not rows:
                return 0
            screened = screening.screen(connection, self.state, rows)
            ids = {one for row in screened.rows for one in (row.config_id, row.route_id)}
            self.known = self.routes.load(connection, ids)
            orders = plan.plan(connection, screened.rows, self.known)
            put_off = [
                _must(verdicts.dismissal(one, self.state.settings)) for one in orders if one.wait
            ]
            moved = outbox.dismiss(connection, put_off)
        crash_point("claim.committed", rows)
        announce(self.state.app, [row for row in put_off if row["id"] in moved])
        ready = [order for order in orders if order.wait is None]
        learn(self.pool, (order.route for order in ready))
        self.waiting = deque(sorted([*self.waiting, *ready], key=lambda order: order.row.priority))
        screened.tell(self.state.app)
        return len(rows)

    def _put_back(self, those: Callable[[Order], bool] = lambda order: True) -> None:
        rows = [verdicts.put_back(order) for order in self.waiting if those(order)]
        if not rows:
            return
        self.waiting = deque(order for order in self.waiting if not those(order))
        with self.state.database.write() as connection:
            outbox.dismiss(connection, rows)

    def _gather(self) -> list[Call | reports.Answer]:
        """Wait for calls to end, unless there are free slots for what waits.

        Return all that did.
        """
        ended: list[Call | reports.Answer] = []
        try:
            # What waits may not use the slots that are kept for what is more urgent.
            is_free = bool(self.waiting) and self.calls < self._slots_for(self.waiting[0])
            blocks = self.calls > 0 and not is_free
            told = self.ended.get(blocks, LOOK_EVERY)
            while True:
                if told is None:
                    self.look_at = 0.0
                else:
                    ended.append(told)
                told = self.ended.get_nowait()
        except Empty:
            self.calls -= len(ended)
            return ended

    def _turn(self, ended: Sequence[Call | reports.Answer]) -> int:
        """Write down what ended and what is dialled next in one transaction; then dial it."""
        groups, dismissed = self._next_groups()
        if not ended and not groups and not dismissed:
            return 0
        written = self._write(ended, groups, dismissed)
        crash_point("settle.committed", any(isinstance(one, Call) for one in ended))
        crash_point("land.committed", any(isinstance(one, reports.Answer) for one in ended))
        crash_point("start.committed", written.started)
        dialled = 0
        for group in groups:
            ready = [order for order in group if order.row.id in written.started]
            if ready:
                self._dial(calling(self.state, ready, written.letters.get(ready[0].row.id)))
                dialled += len(ready)
        announce(self.state.app, written.moved)
        breaker.announce(self.state.app, written.switched)
        for _, circuit in written.switched:
            if circuit.config_id in self.known:
                self.known[circuit.config_id] = replace(
                    self.known[circuit.config_id], circuit=circuit
                )
        if written.paused:
            # They look for another way, or wait, like all that is claimed from now on.
            self._put_back(lambda order: order.route.config_id in written.paused)
        return dialled

    def _write(
        self,
        ended: Sequence[Call | reports.Answer],
        groups: Sequence[Sequence[Order]],
        dismissed: Sequence[Verdict],
    ) -> Written:
        calls = [one for one in ended if isinstance(one, Call)]
        answers = [one for one in ended if isinstance(one, reports.Answer)]
        endings, outcomes = _endings(calls)
        known = {one: route.circuit for one, route in self.known.items()}
        news = self.record.news(_tallies(calls), known)
        next_ones = [order for group in groups for order in group]

        def write() -> Written:
            with self.state.database.write() as connection:
                settled = outbox.settle(connection, endings)
                settled |= outbox.dismiss(connection, dismissed)
                records.settle(connection, [one for one in outcomes if one["id"] in settled])
                suppression.learn(connection, _answers(calls, self.state.settings))
                moved: list[Any] = [row for row in (*endings, *dismissed) if row["id"] in settled]
                for answer in answers:
                    moved += reports.land(connection, answer)
                # Before the next ones start: they may be on their way to one that has just failed.
                switched = breaker.settle(connection, news)
                paused = {after.config_id for _, after in switched if after.is_paused}
                started = _start(connection, next_ones, paused)
                dialled = [order for order in next_ones if order.row.id in started]
                letters = records.load(connection, dialled, self.files)
                return Written(moved, started, letters, switched, paused)

        written = persist(write)
        self.record.forget(news)
        return written

    def _next_groups(self) -> tuple[list[list[Order]], list[Verdict]]:
        """Choose what is dialled next, each group by one call, and what is not dialled at all."""
        groups: list[list[Order]] = []
        dismissed: list[Verdict] = []
        batches: dict[int, list[Order]] = {}
        kept: list[Order] = []
        while self.waiting and (len(groups) + self.calls < self.slots or batches):
            order = self.waiting.popleft()
            verdict = verdicts.dismissal(order, self.state.settings)
            if verdict is not None:
                dismissed.append(verdict)
            elif _lease_left(order) < CALL_DEADLINE:
                continue  # it becomes due again by itself
            elif not _grouped(order, groups, batches, self._slots_for(order) - self.calls):
                kept.append(order)
                if not batches:
                    break
        self.waiting.extendleft(reversed(kept))
        return groups, dismissed

    def _slots_for(self, order: Order) -> int:
        return self.slots if order.row.priority == HIGH else self.common_slots

    def _dial(self, task: Callable[[], Call | reports.Answer]) -> None:
        self.calls += 1
        self.pool.submit(lambda: self.ended.put(task()))


def _start(connection: Connection, orders: Sequence[Order], paused: set[int]) -> set[int]:
    """Start these orders, and give back those whose configuration has just been paused."""
    stopped = [verdicts.put_back(order) for order in orders if order.route.config_id in paused]
    outbox.dismiss(connection, stopped)
    go = [verdicts.starting(order) for order in orders if order.route.config_id not in paused]
    return outbox.start(connection, go)


def _must(verdict: Verdict | None) -> Verdict:
    assert verdict is not None
    return verdict


def _lease_left(order: Order) -> float:
    return outbox.LEASE - (time.monotonic() - order.claimed)


def _grouped(
    order: Order, groups: list[list[Order]], batches: dict[int, list[Order]], free: int
) -> bool:
    """Put an order into a batch that goes its way, or into a group of its own.

    False if neither fits.
    """
    room = 1 if order.is_retry or order.row.channel != "sms" else order.route.batch
    batch = batches.get(order.route.config_id)
    if room > 1 and batch is not None and len(batch) < room:
        batch.append(order)
        return True
    if len(groups) >= free:
        return False
    groups.append([order])
    if room > 1:
        batches[order.route.config_id] = groups[-1]
    return True


def _endings(calls: Iterable[Call]) -> tuple[list[Verdict], list[dict[str, Any]]]:
    """Say how calls ended for their messages, and for single recipients of emails."""
    now = time.monotonic()
    rows: list[Verdict] = []
    outcomes: list[dict[str, Any]] = []
    for call in calls:
        for order, result in zip(call.orders, call.results, strict=True):
            elapsed = now - order.claimed
            if call.letter is None:
                rows.append(verdicts.ending(order, result, elapsed))
                continue
            row, own = records.ending(order, call.letter, result, elapsed)
            rows.append(row)
            outcomes += own
    # Everybody locks rows in the same order, or two workers could wait for each other.
    return sorted(rows, key=lambda row: int(row["id"])), outcomes


def _answers(calls: Iterable[Call], settings: Settings) -> list[suppression.Answer]:
    """Return who answered what of one recipient, unless somebody else was rung in their place."""
    if settings.redirect_to is not None:
        return []
    return [
        (order.row, order.route.config_id, said)
        for call in calls
        if call.letter is None
        for order, said in zip(call.orders, call.results, strict=True)
    ]


def _tallies(calls: Iterable[Call]) -> dict[int, breaker.Tally]:
    """Count, for each configuration, how its calls ended."""
    tallies: dict[int, breaker.Tally] = {}
    for call in calls:
        route = call.orders[0].route
        tally = tallies.setdefault(route.config_id, breaker.Tally(route.version))
        for order, result in zip(call.orders, call.results, strict=True):
            tally.count(result, is_first=not order.row.tries, is_probe=order.is_probe)
    return tallies


def persist(write: Callable[[], T]) -> T:
    """Write, and go on trying while the database is away: what a call has told us is told once."""
    give_up = time.monotonic() + SETTLE_FOR
    pause = 0.05
    while True:
        try:
            return write()
        except (OperationalError, DatabaseError):
            if time.monotonic() + pause > give_up:
                raise
            log.warning("the database is away; trying again in %.2f s", pause)
            time.sleep(pause)
            pause = min(pause * 2, 5.0)
