"""``flask communication worker``: a process that does nothing but attend, with Redis or without."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .state import State
from .worker import Worker

# Redis is away: look for it this often. The table is looked at every second all the while.
LISTEN_AGAIN = 2.0


def serve(state: State) -> None:
    """Attend until SIGTERM or SIGINT; then finish the calls under way and return."""
    worker = Worker(state)
    state.worker = worker
    try:
        if state.bell is None:
            with _stopped_by_signal(worker.stop):
                worker.run()
        else:
            _serve_with_bell(state, worker)
    finally:
        state.worker = None


def _serve_with_bell(state: State, worker: Worker) -> None:
    ended = threading.Event()

    def end() -> None:
        ended.set()
        worker.stop()

    attending = threading.Thread(target=worker.run, name="communication-worker")
    attending.start()
    try:
        while not ended.is_set():
            with _stopped_by_signal(end):
                # RQ costs a start-up that only a process with Redis should pay.
                from .jobs import listen

                listen(state, end)
                ended.wait(LISTEN_AGAIN)
    finally:
        end()
        attending.join()


@contextmanager
def _stopped_by_signal(stop: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda *_: stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
