"""Wait for a state instead of a time, and bound what must end."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A busy machine may take this much longer (seconds). The faults in question last for minutes.
BUSY = 20.0


def wait_until(done: Callable[[], bool], what: str = "the state", seconds: float = 60.0) -> None:
    """Return as soon as ``done()`` is true; fail after a time that no healthy machine needs."""
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, f"{what} took more than {seconds} s"
        time.sleep(0.01)


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """Fail if the block lasts longer than this, and longer than a busy machine explains."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds + BUSY


@contextmanager
def bounded(deadline: float, memory: int = 20_000_000) -> Iterator[None]:
    """Fail if the block lasts much longer than its deadline, or holds more memory at once."""
    tracemalloc.start()
    try:
        with ends_within(deadline):
            yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < memory
