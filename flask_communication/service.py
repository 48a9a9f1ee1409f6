"""``flask communication worker``: a process that does nothing but attend, with Redis or without."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .state import State
from .worker import Worker

log = logging.getLogger("flask_communication")

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
                if _listen(state):
                    end()
                ended.wait(LISTEN_AGAIN)
    finally:
        end()
        attending.join()


def _listen(state: State) -> bool:
    """Take RQ's jobs, each of which wakes our worker; return whether we were told to stop.

    RQ answers SIGTERM and SIGINT itself meanwhile: it finishes its job and returns.
    """
    from redis import Redis
    from redis.exceptions import RedisError
    from rq import Queue, SimpleWorker

    assert state.settings.redis_url is not None
    try:
        redis = Redis.from_url(state.settings.redis_url)
        queue = Queue(state.settings.queue, connection=redis)
        with state.app.app_context():
            SimpleWorker([queue], connection=redis).work(logging_level="WARNING")
    except (RedisError, OSError) as failure:
        log.warning("no bell (%s); looking every second instead", type(failure).__name__)
        return False
    return True


@contextmanager
def _stopped_by_signal(stop: Any) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda *_: stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
