"""The worker process of ``flask communication worker``, with Redis or without."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...configs.state import State, WorkerBell
from .worker import Worker

log = logging.getLogger(__name__)

# Redis is away: look for it this often. The table is looked at every second all the while.
LISTEN_AGAIN = 2.0


def serve(state: State) -> None:
    """Work until SIGTERM or SIGINT; then finish the requests under way and return."""
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

    assert state.bell is not None
    attending = threading.Thread(target=worker.run, name="communication-worker")
    hearing = threading.Thread(
        target=_hear, args=(state.bell, worker, ended), name="communication-bell"
    )
    attending.start()
    hearing.start()
    try:
        while not ended.is_set():
            with _stopped_by_signal(end):
                # RQ costs a start-up that only a process with Redis should pay.
                from .listener import listen

                listen(state, end)
                ended.wait(LISTEN_AGAIN)
    finally:
        end()
        attending.join()
        hearing.join()


def _hear(bell: WorkerBell, worker: Worker, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            bell.hear(worker.wake, ended)
        except Exception as failure:
            # RQ's jobs, and a look at the table every second, do without.
            log.debug("cannot hear the bell (%s)", type(failure).__name__)
            ended.wait(LISTEN_AGAIN)


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
