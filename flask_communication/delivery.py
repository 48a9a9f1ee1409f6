"""Attend to due rows: choose the route, call the provider, write down how it ended."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Row
from sqlalchemy.exc import OperationalError

from . import events, outbox, reports, verdicts
from .announce import announce
from .errors import DatabaseError, OutcomeUnknown, ProviderError
from .routing import Route, Routes
from .state import State
from .verdicts import Order, Result, Verdict

log = logging.getLogger("flask_communication")

# A provider call takes at most this long; with less of its lease left a message is not dialled.
CALL_DEADLINE = 20.0
CLAIM_AT_MOST = 1000
# With free slots and nothing known to wait, look for new work this often (a nudge comes at once).
LOOK_EVERY = 0.2
RESCUE_EVERY = 5.0
LEARN_FOR = 1.0
LEARN_FOR_AT_MOST = 600.0
# The database may be away this long before what is known about calls is given up.
SETTLE_FOR = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """Messages that went to their provider together, and how each ended."""

    orders: Sequence[Order]
    results: Sequence[Result]


class Shift:
    """One worker's turn: claim, dial and settle until nothing is due.

    The thread that runs the shift does all the SQL; ``pool`` threads do nothing but call providers.
    Rows are claimed, started and settled in groups whose size follows the load by itself: while one
    group is being written, calls go on ending, and they are the next group.
    """

    def __init__(
        self, state: State, pool: ThreadPoolExecutor, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.state = state
        self.pool = pool
        self.stop = stop
        self.slots = state.settings.concurrency
        self.routes = Routes(state)
        self.asker = reports.Asker(state, self.routes)
        self.waiting: deque[Order] = deque()
        self.ended: SimpleQueue[Call | reports.Answer | None] = SimpleQueue()
        self.calls = 0
        self.appetite = self.slots
        self.look_at = 0.0
        self.rescue_at: float | None = None

    def nudge(self) -> None:
        """Tell a running shift that there is new work; safe from any thread."""
        self.ended.put(None)

    def run(self) -> int:
        """Work until nothing is due, or ``stop()`` says so; return how many messages were dialled."""
        dialled = 0
        while True:
            self._look()
            dialled += self._turn(self._gather())
            if not self.calls and not self.waiting:
                return dialled

    def _look(self) -> None:
        if self.stop():
            self._put_back()
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
        if self.waiting and self.rescue_at is None:
            # A shift that begins with work dials it first.
            self.rescue_at = now
            return
        if self.rescue_at is None or now >= self.rescue_at:
            rescue(self.state, self.routes, self.pool)
            self.rescue_at = now + RESCUE_EVERY
        for asking in self.asker.due(self.slots - self.calls):
            self._dial(asking)

    def _claim(self) -> None:
        with self.state.database.write() as connection:
            rows = outbox.claim(connection, self.appetite)
            routes = self.routes.load(connection, {row.config_id for row in rows})
        learn(self.pool, routes.values())
        claimed = time.monotonic()
        self.waiting.extend(Order(row, routes.get(row.config_id) or _nowhere(row), claimed) for row in rows)
        # A claim that filled up means that more is waiting: take more at once, up to a limit.
        full = len(rows) == self.appetite
        self.appetite = min(CLAIM_AT_MOST, self.appetite * 2) if full else self.slots
        self.look_at = 0.0 if full else claimed + LOOK_EVERY

    def _put_back(self) -> None:
        rows = [verdicts.put_back(order) for order in self.waiting]
        self.waiting.clear()
        if not rows:
            return
        with self.state.database.write() as connection:
            outbox.dismiss(connection, rows)

    def _gather(self) -> list[Call | reports.Answer]:
        """Wait for calls to end, unless there are free slots for what waits; return all that did."""
        ended: list[Call | reports.Answer] = []
        try:
            blocks = self.calls > 0 and not (self.waiting and self.calls < self.slots)
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
        moved, started = self._write(ended, groups, dismissed)
        dialled = 0
        for group in groups:
            ready = [order for order in group if order.row.id in started]
            if ready:
                self._dial(_calling(self.state, ready))
                dialled += len(ready)
        announce(self.state.app, moved)
        return dialled

    def _write(
        self,
        ended: Sequence[Call | reports.Answer],
        groups: Sequence[Sequence[Order]],
        dismissed: Sequence[Verdict],
    ) -> tuple[list[Any], set[int]]:
        calls = [one for one in ended if isinstance(one, Call)]
        answers = [one for one in ended if isinstance(one, reports.Answer)]
        endings = _endings(calls)
        startings = [verdicts.starting(order) for group in groups for order in group]

        def write() -> tuple[list[Any], set[int]]:
            with self.state.database.write() as connection:
                settled = outbox.settle(connection, endings)
                settled |= outbox.dismiss(connection, dismissed)
                moved: list[Any] = [row for row in (*endings, *dismissed) if row["id"] in settled]
                for answer in answers:
                    moved += reports.land(connection, answer)
                return moved, outbox.start(connection, startings)

        return persist(write)

    def _next_groups(self) -> tuple[list[list[Order]], list[Verdict]]:
        """Choose what is dialled next, each group by one call, and what is not dialled at all."""
        groups: list[list[Order]] = []
        dismissed: list[Verdict] = []
        batches: dict[int, list[Order]] = {}
        kept: list[Order] = []
        free = self.slots - self.calls
        while self.waiting and (len(groups) < free or batches):
            order = self.waiting.popleft()
            verdict = verdicts.dismissal(order, self.state.settings)
            if verdict is not None:
                dismissed.append(verdict)
            elif _lease_left(order) < CALL_DEADLINE:
                continue  # it becomes due again by itself
            elif not _grouped(order, groups, batches, free):
                kept.append(order)
        self.waiting.extendleft(reversed(kept))
        return groups, dismissed

    def _dial(self, task: Callable[[], Call | reports.Answer]) -> None:
        self.calls += 1
        self.pool.submit(lambda: self.ended.put(task()))


def _nowhere(row: Row[Any]) -> Route:
    return Route(row.config_id or 0, blocked=f"configuration {row.config_id} does not exist")


def _lease_left(order: Order) -> float:
    return outbox.LEASE - (time.monotonic() - order.claimed)


def _grouped(order: Order, groups: list[list[Order]], batches: dict[int, list[Order]], free: int) -> bool:
    """Put an order into a batch that goes its way, or into a group of its own; False if neither fits."""
    room = 1 if order.is_retry else order.route.batch
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


def _endings(calls: Iterable[Call]) -> list[Verdict]:
    now = time.monotonic()
    rows = [
        verdicts.ending(order, result, now - order.claimed)
        for call in calls
        for order, result in zip(call.orders, call.results, strict=True)
    ]
    # Everybody locks rows in the same order, or two workers could wait for each other.
    return sorted(rows, key=lambda row: int(row["id"]))


def _calling(state: State, orders: Sequence[Order]) -> Callable[[], Call]:
    begun = time.monotonic()

    def call() -> Call:
        if time.monotonic() - begun > outbox.LEASE - CALL_DEADLINE:
            # This process was paused: somebody else may be dialling by now.
            late = verdicts.too_late()
            return Call(orders, [late] * len(orders))
        return Call(orders, _results(state, orders))

    return call


def _results(state: State, orders: Sequence[Order]) -> Sequence[Result]:
    route = orders[0].route
    assert route.provider is not None
    batch = [order.sms(verdicts.recipient(order.row.destination, state.settings) or "") for order in orders]
    try:
        if len(batch) > 1:
            return _checked(route.provider.send_sms_bulk(batch, route.config), len(batch))
        send = route.provider.retry_sms if orders[0].is_retry else route.provider.send_sms
        return [send(batch[0], route.config)]
    except ProviderError as failure:
        return [failure] * len(batch)
    except Exception as failure:
        log.exception("provider %s failed in an unforeseen way", route.provider.name)
        told = OutcomeUnknown(f"the provider failed in an unforeseen way: {type(failure).__name__}")
        return [told] * len(batch)


def _checked(results: Sequence[Result], expected: int) -> Sequence[Result]:
    if len(results) != expected:
        raise OutcomeUnknown(f"{len(results)} results came back for {expected} messages")
    return results


def learn(pool: ThreadPoolExecutor, routes: Iterable[Route]) -> None:
    """Let providers that are new to this process find out what they can do, all at once.

    Nobody waits long for one that does not answer: it goes on trying, and counts as plain meanwhile.
    """
    strangers = {id(r.provider): r.provider for r in routes if r.provider and not r.provider.is_known}
    wait([pool.submit(provider.learn) for provider in strangers.values()], timeout=LEARN_FOR)


def rescue(state: State, routes: Routes, pool: ThreadPoolExecutor) -> int:
    """Take up the messages whose worker stopped while sending them; return how many."""
    with state.database.read() as connection:
        rows = outbox.stranded(connection)
        known = routes.load(connection, {row.config_id for row in rows})
    if not rows:
        return 0
    learn(pool, known.values())
    found = [
        verdicts.stranding(row, known.get(row.config_id))
        for row in rows
        if _decidable(row, known.get(row.config_id))
    ]
    with state.database.write() as connection:
        moved = outbox.rescue(connection, found)
        mine = [row for row in found if row["id"] in moved]
        for row in mine:
            events.note(connection, row["id"], "rescued", f"{row['error']}: {row['status']}")
    if mine:
        log.warning("took up %s messages whose worker had stopped", len(mine))
    announce(state.app, mine)
    return len(mine)


def _decidable(row: Row[Any], route: Route | None) -> bool:
    """Tell whether it is known, or hopeless to wait until it is, if the provider ignores repeats."""
    if route is None or route.provider is None or route.provider.is_known:
        return True
    return (row.age or 0.0) > LEARN_FOR_AT_MOST


def persist(write: Callable[[], T]) -> T:
    """Write, and go on trying while the database is away: what a call has told us is told once."""
    give_up = time.monotonic() + SETTLE_FOR
    pause = 0.05
    while True:
        try:
            return write()
        except OperationalError:
            if time.monotonic() + pause > give_up:
                raise
            log.warning("the database is away; trying again in %.2f s", pause)
            time.sleep(pause)
            pause = min(pause * 2, 5.0)
