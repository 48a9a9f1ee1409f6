"""The dispatcher: claim due messages, send them, and store how that ended."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sqlalchemy import Row
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from ...configs import breaker
from ...configs.routes import Route, Routes
from ...configs.state import State
from ...errors import DatabaseError
from ...signals import announce
from ...storage.crashpoints import crash_point
from ...storage.files import Files
from ...storage.models import BULK, HIGH
from .. import outbox, outcomes, plan, reports
from ..channel import Channel, Sent, channel_of
from ..outcomes import Dispatch
from ..reports import Answer
from ..transitions import Dismissal, Settlement
from .rescue import rescue
from .schedule import LOOK_EVERY, Schedule
from .sending import DEADLINE, Batch, Pool, learn, sending

log = logging.getLogger(__name__)

# The database may be away this long before what is known about requests is given up.
SETTLE_FOR = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """What one transaction has done."""

    moved: Sequence[Settlement | Row[Any]] = ()
    started: frozenset[int] = frozenset()
    payloads: Mapping[int, object] = field(default_factory=dict)
    switched: breaker.Changes = field(default_factory=list)
    paused: frozenset[int] = frozenset()


class Dispatcher:
    """One worker's turn: claim, send and settle until nothing is due.

    The thread that runs it does all the SQL; the threads of the pool only make requests. Rows are
    claimed, started and settled in groups whose size follows the load by itself: while one group is
    being written, requests go on ending, and they are the next group.
    """

    def __init__(
        self,
        state: State,
        routes: Routes,
        record: breaker.RecentRequests,
        threads: ThreadPoolExecutor,
        stop: Callable[[], bool],
    ) -> None:
        self.state = state
        self.stop = stop
        self.pool: Pool[Batch | Answer] = Pool(threads, state.settings.concurrency)
        self.schedule = Schedule(state.settings.concurrency)
        self.routes = routes
        self.known: dict[int, Route] = {}
        self.record = record
        self.files = Files()
        self.asker = reports.Asker(state, self.routes)
        self.waiting: deque[Dispatch] = deque()
        self.is_tidy = False

    def nudge(self) -> None:
        """Look for new work now; safe from any thread."""
        self.pool.nudge()

    def run(self) -> int:
        """Work until nothing is due, or ``stop()`` says so; return how many messages were sent."""
        sent = 0
        while True:
            self._look()
            sent += self._turn(self._gather())
            if self.is_tidy and self._is_idle():
                return sent

    def _is_idle(self) -> bool:
        return not self.pool.busy and not self.waiting

    def _look(self) -> None:
        if self.stop():
            self._put_back()
            self.is_tidy = True
            return
        try:
            self._take()
        except (OperationalError, DatabaseError):
            if not self.pool.busy:
                raise
            # The answers to requests under way matter more: go on, and look again later.
            log.warning("cannot look for work now", exc_info=True)
            self.schedule.pause()

    def _take(self) -> None:
        if len(self.waiting) < self.pool.slots and self.schedule.may_claim:
            self.schedule.claimed(self._claim(self.schedule.claim_size))
        elif self.waiting and self.schedule.may_claim_urgent:
            self._claim_urgent()
        if self.schedule.may_tidy or self._is_idle():
            self._tidy()

    def _tidy(self) -> None:
        """Move on what stopped workers have left, and ask for delivery reports."""
        if self.schedule.take_rescue():
            rescue(self.state, self.routes, self.pool.threads)
        for asking in self.asker.due(self.pool.free(is_urgent=True)):
            self.pool.submit(asking)
        self.is_tidy = True

    def _claim_urgent(self) -> None:
        """Claim what must not wait behind what was claimed already."""
        least = self.waiting[-1].claim.priority
        if least > HIGH:
            self._claim(self.pool.slots, before=least)
        self.schedule.claimed_urgent()

    def _claim(self, limit: int, before: int = BULK + 1) -> int:
        """Claim messages, dismiss what cannot go now, and keep the rest; return how many."""
        with self.state.database.write() as connection:
            claims = outbox.claim(connection, limit, before=before)
            if not claims:
                return 0
            screened = plan.screen(connection, self.state, claims)
            ids = {one for claim in screened.claims for one in (claim.config_id, claim.route_id)}
            self.known = self.routes.load(connection, ids)
            dispatches = plan.plan(connection, screened.claims, self.known)
            put_off = [one for one in map(self._dismissal, dispatches) if one is not None]
            moved = outbox.dismiss(connection, put_off)
        crash_point("claim.committed", claims)
        announce(self.state.app, [one for one in put_off if one.id in moved])
        gone = {one.id for one in put_off}
        self._keep([one for one in dispatches if one.claim.id not in gone])
        screened.announce(self.state.app)
        return len(claims)

    def _dismissal(self, dispatch: Dispatch) -> Dismissal | None:
        return self._channel(dispatch).dismissal(dispatch, self.state.settings)

    def _keep(self, ready: Sequence[Dispatch]) -> None:
        learn(self.pool.threads, (one.route for one in ready))
        by_priority = sorted([*self.waiting, *ready], key=lambda one: one.claim.priority)
        self.waiting = deque(by_priority)

    def _put_back(self, those: Callable[[Dispatch], bool] = lambda _one: True) -> None:
        rows = [Dismissal.returning(one.claim) for one in self.waiting if those(one)]
        if not rows:
            return
        self.waiting = deque(one for one in self.waiting if not those(one))
        with self.state.database.write() as connection:
            outbox.dismiss(connection, rows)

    def _gather(self) -> list[Batch | Answer]:
        """Wait for requests to end, unless there are free slots; return all answers."""
        # What waits may not use the slots that are kept for what is more urgent.
        is_free = bool(self.waiting) and self._free_for(self.waiting[0]) > 0
        wait = LOOK_EVERY if self.pool.busy and not is_free else None
        ended, nudged = self.pool.gather(wait)
        if nudged:
            self.schedule.look_now()
        return ended

    def _free_for(self, dispatch: Dispatch) -> int:
        return self.pool.free(is_urgent=dispatch.claim.priority == HIGH)

    def _turn(self, ended: Sequence[Batch | Answer]) -> int:
        """Store what ended and what is sent next in one transaction; then send it."""
        groups = self._next_groups()
        if not ended and not groups:
            return 0
        written = self._write(ended, groups)
        crash_point("settle.committed", any(isinstance(one, Batch) for one in ended))
        crash_point("land.committed", any(isinstance(one, Answer) for one in ended))
        crash_point("start.committed", written.started)
        sent = sum(self._send(group, written) for group in groups)
        announce(self.state.app, written.moved)
        breaker.announce(self.state.app, written.switched)
        self._follow(written)
        return sent

    def _send(self, group: Sequence[Dispatch], written: Written) -> int:
        """Make the request that sends what of a group was started; return how many messages."""
        ready = [one for one in group if one.claim.id in written.started]
        if ready:
            payload = written.payloads.get(ready[0].claim.id)
            channel = self._channel(ready[0])
            self.pool.submit(sending(self.state.settings, channel, ready, payload))
        return len(ready)

    def _follow(self, written: Written) -> None:
        """Take what waits here off the configurations that have just been paused."""
        for _, after in written.switched:
            if after.config_id in self.known:
                route = replace(self.known[after.config_id], breaker=after)
                self.known[after.config_id] = route
        if written.paused:
            # They look for another way, or wait, like all that is claimed from now on.
            self._put_back(lambda one: one.route.config_id in written.paused)

    def _channel(self, dispatch: Dispatch) -> Channel:
        return channel_of(self.state, dispatch.claim.channel)

    def _write(
        self, ended: Sequence[Batch | Answer], groups: Sequence[Sequence[Dispatch]]
    ) -> Written:
        batches = [one for one in ended if isinstance(one, Batch)]
        answers = [one for one in ended if isinstance(one, Answer)]
        settlements = _settlements(batches)
        known = {one: route.breaker for one, route in self.known.items()}
        updates = self.record.updates(_tallies(batches), known)
        next_ones = [one for group in groups for one in group]

        def write() -> Written:
            with self.state.database.write() as connection:
                moved: list[Settlement | Row[Any]] = [*self._settle(connection, settlements)]
                self._learn(connection, batches)
                for answer in answers:
                    moved += reports.land(connection, answer)
                # Before the next ones start: they may go to a configuration that has just failed.
                switched = breaker.settle(connection, updates)
                paused = frozenset(after.config_id for _, after in switched if after.is_paused)
                started = frozenset(_start(connection, next_ones, paused))
                payloads = self._load(connection, next_ones, started)
                return Written(moved, started, payloads, switched, paused)

        written = persist(write)
        self.record.forget(updates)
        return written

    def _settle(
        self, connection: Connection, settlements: Mapping[Channel, Sequence[Settlement]]
    ) -> list[Settlement]:
        # Everybody locks rows in the same order, or two workers could wait for each other.
        rows = sorted((one for each in settlements.values() for one in each), key=lambda s: s.id)
        settled = outbox.settle(connection, rows)
        for channel, mine in settlements.items():
            channel.settled(connection, [one for one in mine if one.id in settled])
        return [one for one in rows if one.id in settled]

    def _learn(self, connection: Connection, batches: Sequence[Batch]) -> None:
        """Store what providers said of recipients, unless somebody else was written to instead."""
        if self.state.settings.redirect_to is not None:
            return
        for channel, mine in _by_channel(batches).items():
            sent = [
                Sent(*pair)
                for one in mine
                for pair in zip(one.dispatches, one.results, strict=True)
            ]
            channel.learn(connection, sent)

    def _load(
        self, connection: Connection, dispatches: Sequence[Dispatch], started: frozenset[int]
    ) -> Mapping[int, object]:
        mine: dict[Channel, list[Dispatch]] = {}
        for one in dispatches:
            if one.claim.id in started:
                mine.setdefault(self._channel(one), []).append(one)
        payloads: dict[int, object] = {}
        for channel, each in mine.items():
            payloads |= channel.load(connection, each, self.files)
        return payloads

    def _next_groups(self) -> list[list[Dispatch]]:
        """Choose what is sent next, each group by one request."""
        groups: list[list[Dispatch]] = []
        batches: dict[int, list[Dispatch]] = {}
        kept: list[Dispatch] = []
        while self.waiting and (len(groups) < self.pool.free(is_urgent=True) or batches):
            one = self.waiting.popleft()
            if _lease_left(one) < DEADLINE:
                continue  # it becomes due again by itself
            if not self._grouped(one, groups, batches):
                kept.append(one)
                if not batches:
                    break
        self.waiting.extendleft(reversed(kept))
        return groups

    def _grouped(
        self, one: Dispatch, groups: list[list[Dispatch]], batches: dict[int, list[Dispatch]]
    ) -> bool:
        """Put a message into a batch of its route, or a group of its own; False without room."""
        room = 1 if one.claim.is_retry else self._channel(one).batch_size(one.route)
        batch = batches.get(one.route.config_id)
        if room > 1 and batch is not None and len(batch) < room:
            batch.append(one)
            return True
        if len(groups) >= self._free_for(one):
            return False
        groups.append([one])
        if room > 1:
            batches[one.route.config_id] = groups[-1]
        return True


def _start(
    connection: Connection, dispatches: Sequence[Dispatch], paused: frozenset[int]
) -> set[int]:
    """Start these messages, and give back those whose configuration has just been paused."""
    stopped = [one for one in dispatches if one.route.config_id in paused]
    outbox.dismiss(connection, [Dismissal.returning(one.claim) for one in stopped])
    ready = [one for one in dispatches if one.route.config_id not in paused]
    return outbox.start(connection, [outcomes.starting(one) for one in ready])


def _lease_left(dispatch: Dispatch) -> float:
    return outbox.LEASE - (time.monotonic() - dispatch.claimed)


def _by_channel(batches: Iterable[Batch]) -> dict[Channel, list[Batch]]:
    found: dict[Channel, list[Batch]] = {}
    for one in batches:
        found.setdefault(one.channel, []).append(one)
    return found


def _settlements(batches: Iterable[Batch]) -> dict[Channel, list[Settlement]]:
    """Return what becomes of each message, by channel."""
    now = time.monotonic()
    return {
        channel: [
            channel.settlement(dispatch, batch.payload, result, now - dispatch.claimed)
            for batch in mine
            for dispatch, result in zip(batch.dispatches, batch.results, strict=True)
        ]
        for channel, mine in _by_channel(batches).items()
    }


def _tallies(batches: Iterable[Batch]) -> dict[int, breaker.Tally]:
    """Count, for each configuration, how its requests ended."""
    tallies: dict[int, breaker.Tally] = {}
    for batch in batches:
        route = batch.dispatches[0].route
        tally = tallies.setdefault(route.config_id, breaker.Tally(route.version))
        for dispatch, result in zip(batch.dispatches, batch.results, strict=True):
            is_first = not dispatch.claim.tries
            tally.count(result, is_first=is_first, is_probe=dispatch.is_probe)
    return tallies


def persist(write: Callable[[], T]) -> T:
    """Write, and go on trying while the database is away: an answer is given only once."""
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
