"""Requests that send messages, made in the threads of a pool: they do no SQL, and raise nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from ...configs.routes import Route
from ...configs.settings import Settings
from ...errors import OutcomeUnknown, ProviderError
from ...storage.crashpoints import crash_point
from .. import outbox, outcomes
from ..channel import Channel
from ..outcomes import Dispatch, Result

log = logging.getLogger(__name__)

# A request takes at most this long; with less of its lease left a message is not sent.
DEADLINE = 20.0
LEARN_FOR = 1.0
# Of the requests at once, this share (and one at least) is kept for messages of high priority.
KEPT_FOR_HIGH = 1 / 20

T = TypeVar("T")


class Pool(Generic[T]):
    """Runs requests in threads, and collects what they return for the one thread that does SQL."""

    def __init__(self, threads: ThreadPoolExecutor, slots: int) -> None:
        self.threads = threads
        self.slots = slots
        self.common_slots = slots - max(1, int(slots * KEPT_FOR_HIGH)) if slots > 1 else 1
        self.busy = 0
        self._ended: SimpleQueue[T | None] = SimpleQueue()

    def submit(self, request: Callable[[], T]) -> None:
        """Make a request in a thread; :meth:`gather` returns its answer."""
        self.busy += 1
        self.threads.submit(lambda: self._ended.put(request()))

    def nudge(self) -> None:
        """End a wait of :meth:`gather`, because there is new work; safe from any thread."""
        self._ended.put(None)

    def free(self, *, is_urgent: bool) -> int:
        """Return how many more requests may be made now."""
        return (self.slots if is_urgent else self.common_slots) - self.busy

    def gather(self, wait: float | None) -> tuple[list[T], bool]:
        """Return the answers that are there, and whether there was a nudge.

        With ``wait``, wait so many seconds for the first.
        """
        ended: list[T] = []
        nudged = False
        try:
            one = self._ended.get(wait is not None, wait)
            while True:
                if one is None:
                    nudged = True
                else:
                    ended.append(one)
                one = self._ended.get_nowait()
        except Empty:
            self.busy -= len(ended)
            return ended, nudged


@dataclass(frozen=True)
class Batch:
    """Messages that one request sent together, and the result of each."""

    channel: Channel
    dispatches: Sequence[Dispatch]
    payload: object
    results: Sequence[Result]


def sending(
    settings: Settings, channel: Channel, dispatches: Sequence[Dispatch], payload: object
) -> Callable[[], Batch]:
    """Return the request that sends these messages together."""
    begun = time.monotonic()

    def send() -> Batch:
        if time.monotonic() - begun > outbox.LEASE - DEADLINE:
            # This process was paused: another worker may be sending them by now.
            late = outcomes.too_late()
            return Batch(channel, dispatches, payload, [late] * len(dispatches))
        crash_point("call.begun")
        results = _results(settings, channel, dispatches, payload)
        _learn_late(dispatches[0].route, results)
        crash_point("call.ended")
        return Batch(channel, dispatches, payload, results)

    return send


def _learn_late(route: Route, results: Sequence[Result]) -> None:
    """Ask a provider that has not said yet whether it ignores repeats: a doubt depends on it."""
    if not route.capabilities.known and any(isinstance(one, OutcomeUnknown) for one in results):
        route.learn()


def _results(
    settings: Settings, channel: Channel, dispatches: Sequence[Dispatch], payload: object
) -> Sequence[Result]:
    try:
        with dispatches[0].route.guarded():
            results = channel.send(settings, dispatches, payload)
        if len(results) == len(dispatches):
            return results
        raise OutcomeUnknown(f"{len(results)} results came back for {len(dispatches)} messages")
    except ProviderError as failure:
        return [failure] * len(dispatches)
    except Exception as failure:
        provider = dispatches[0].route.provider
        log.exception("provider %s failed in an unforeseen way", provider and provider.name)
        why = f"the provider failed in an unforeseen way: {type(failure).__name__}"
        return [OutcomeUnknown(why)] * len(dispatches)


def learn(threads: ThreadPoolExecutor, routes: Iterable[Route]) -> None:
    """Let providers that are new to this process find out what they can do, all at once.

    One that does not answer soon goes on asking, and counts as plain meanwhile.
    """
    new = {id(r.provider): r for r in routes if not r.capabilities.known}
    wait([threads.submit(route.learn) for route in new.values()], timeout=LEARN_FOR)
