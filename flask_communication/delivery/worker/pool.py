"""The threads that make requests to providers, and how many of them are busy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

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
