"""The worker: attends to due messages in this process, until it is stopped or nothing is due."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.exc import OperationalError

from ...configs.breaker import RecentRequests
from ...configs.routes import Routes
from ...configs.state import State
from ...errors import NotUpgraded
from ...providers import standin
from ...storage import retention
from .. import outbox
from ..channel import channels_of
from .bell import TICK_EVERY, Bell
from .dispatcher import Dispatcher
from .heartbeat import Heart

log = logging.getLogger(__name__)

# Without a bell the table is looked at this often; one indexed look costs well under a millisecond.
POLL_EVERY = 1.0
AFTER_A_FAILURE = 5.0
# Retention: one process sweeps each hour; none does in its first seconds, when there may be much to
# do.
SWEEP_AFTER, SWEEP_EVERY = 20.0, 600.0
# More threads than requests, so that learning about a provider never waits behind slow ones.
SPARE_THREADS = 4
# Work due so soon is worth waiting for, rather than starting a new process for it.
LINGER = 15.0
# How often a worker looks for a mailbox to read, and a short-lived one for the end of it.
BACKGROUND_LOOK_EVERY = 5.0
WITH_READER = 0.25


class Worker:
    """Attends to all due work, in the thread that calls :meth:`run`."""

    def __init__(self, state: State, sweep_after: float = SWEEP_AFTER) -> None:
        self._state = state
        self._pid = os.getpid()
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._dispatcher: Dispatcher | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._heart = Heart(state)
        # Kept from turn to turn: to decrypt a configuration takes longer than to see that it is
        # the same.
        self._routes = Routes(state)
        # Kept too: a configuration that fails half of the time may do so in many short turns.
        self._record = RecentRequests()
        self._sweep: Iterator[object] | None = None
        self._sweep_at = time.monotonic() + sweep_after

    def wake(self) -> None:
        """Say that there is new work; safe from any thread."""
        self._woken.set()
        dispatcher = self._dispatcher
        if dispatcher is not None:
            dispatcher.nudge()

    def stop(self) -> None:
        """Claim nothing more; :meth:`run` returns when the requests under way have ended."""
        self._stopped.set()
        self.wake()

    def run(self) -> None:
        """Attend until :meth:`stop`; what goes wrong is logged and tried again."""
        if not self._state.database.shares_one_connection:
            threading.Thread(
                target=self._look_in_background, name="communication-background", daemon=True
            ).start()
        with self._pool() as pool:
            woken = False
            try:
                while not self._stopped.is_set():
                    self._woken.clear()
                    pause = self._attend_and_rest(pool, woken)
                    woken = self._woken.wait(pause)
            finally:
                self._heart.stop()

    def _rests(self) -> bool:
        return self._stopped.is_set() or standin.is_on()

    def _attend_and_rest(self, pool: ThreadPoolExecutor, woken: bool) -> float:
        if standin.is_on():
            return POLL_EVERY
        try:
            self._heart.beat()
            if woken or self.is_work_due():
                self._attend(pool, self._rests)
            due = self._next_due()
            if due is None or due > 0:
                self._tidy()
        except NotUpgraded as wrong:
            log.warning("%s", wrong)
            return AFTER_A_FAILURE
        except OperationalError as away:
            log.warning(
                "cannot use the database (%s); looking again in %.0f s",
                _said(away),
                AFTER_A_FAILURE,
            )
            return AFTER_A_FAILURE
        except Exception:
            log.exception("the worker failed; looking again in %.0f s", AFTER_A_FAILURE)
            return AFTER_A_FAILURE
        return POLL_EVERY if due is None else max(0.0, min(POLL_EVERY, due))

    def burst(self, budget: float | None = None, linger: float = 0.0) -> int:
        """Attend until nothing is due, or for ``budget`` seconds; return how many were sent.

        With ``linger``, also wait for what becomes due within that many seconds.
        """
        ends = float("inf") if budget is None else time.monotonic() + budget
        sent = 0
        # Sending does not wait for a slow mailbox.
        reader = threading.Thread(
            target=self._work_in_background, args=(lambda: time.monotonic() >= ends,), daemon=True
        )
        reader.start()
        if self._state.database.shares_one_connection:
            # On their one connection two threads would end each other's transactions.
            reader.join()
        with self._pool() as pool:
            while True:
                sent += self._attend(pool, lambda: time.monotonic() >= ends)
                due = self._next_due()
                left = ends - time.monotonic()
                is_over = due is None or due > min(linger, left)
                if left <= 0 or (is_over and not reader.is_alive()):
                    self._tidy()
                    self._heart.stop()
                    return sent
                # With nothing due soon, it is the reader that we wait for.
                time.sleep(WITH_READER if is_over else max(0.0, due or 0.0))

    def _look_in_background(self) -> None:
        while not self._stopped.wait(BACKGROUND_LOOK_EVERY):
            if not standin.is_on():
                self._work_in_background(self._rests)

    def _work_in_background(self, stop: Callable[[], bool]) -> None:
        try:
            for channel in channels_of(self._state):
                channel.background(self._state, stop)
        except NotUpgraded:
            return  # the worker says so already
        except OperationalError as away:
            log.warning("cannot use the database (%s) for background work", _said(away))
        except Exception:
            log.exception("background work failed")

    def _attend(self, pool: ThreadPoolExecutor, stop: Callable[[], bool]) -> int:
        def stops() -> bool:
            self._heart.beat()
            return stop()

        self._dispatcher = Dispatcher(self._state, self._routes, self._record, pool, stops)
        try:
            return self._dispatcher.run()
        finally:
            self._dispatcher = None

    def _tidy(self) -> None:
        """Do what retention asks, if it is this process's turn, until there is work again."""
        if self._sweep is None:
            if time.monotonic() < self._sweep_at:
                return
            self._sweep_at = time.monotonic() + SWEEP_EVERY
            if not retention.is_my_turn(self._state.database):
                return
            settings = self._state.settings
            self._sweep = retention.sweep(
                self._state.database,
                messages_days=settings.keep_messages_days,
                bodies_days=settings.keep_bodies_days,
            )
        for _ in self._sweep:
            if self._stopped.is_set() or self.is_work_due():
                return
        self._sweep = None

    def is_work_due(self) -> bool:
        """Tell whether a message needs attention now."""
        due = self._next_due()
        return due is not None and due <= 0

    def _next_due(self) -> float | None:
        with self._state.database.read() as connection:
            return outbox.next_due(connection)

    def _pool(self) -> ThreadPoolExecutor:
        threads = self._state.settings.concurrency + SPARE_THREADS
        return ThreadPoolExecutor(threads, thread_name_prefix="communication-call")

    def ensure_thread(self) -> None:
        """Run in a daemon thread of this process, once; again in a forked child."""
        if self._thread is not None and self._pid == os.getpid() and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None or self._pid != os.getpid() or not self._thread.is_alive():
                self._pid = os.getpid()
                self._thread = threading.Thread(
                    target=self.run, name="communication-worker", daemon=True
                )
                self._thread.start()


def _said(failure: OperationalError) -> str:
    lines = str(failure.orig).strip().splitlines()
    return lines[0] if lines else type(failure.orig).__name__


class Ticker:
    """Rings the bell for overdue work now and then, in a web process whose workers run elsewhere.

    It heals what a bell cannot: Redis was away or flushed, a worker died, a retry's time has come.
    """

    def __init__(self, state: State, bell: Bell) -> None:
        self._state = state
        self._bell = bell
        self._pid = 0
        self._lock = threading.Lock()

    def ensure_thread(self) -> None:
        """Run in a daemon thread of this process, once; again in a forked child."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="communication-ticker", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(TICK_EVERY)
            try:
                self._tick()
            except Exception:
                log.debug("cannot look for overdue work", exc_info=True)

    def _tick(self) -> None:
        if standin.is_on() or not self._bell.may_tick():
            return
        with self._state.database.read() as connection:
            due = outbox.next_due(connection)
        if (due is not None and due <= 0) or _has_background_work(self._state):
            self._bell.ring()


def _has_background_work(state: State) -> bool:
    return any(one.has_background_work(state) for one in channels_of(state))
