"""The RQ worker inside a worker process: it listens for jobs, each of which wakes the worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.job import Job

from ...configs.state import State

log = logging.getLogger(__name__)

# RQ needs several milliseconds of the processor for a job, just when messages are to be sent.
STEP_ASIDE = 0.03


class _Listener(SimpleWorker):
    """RQ's worker without a fork for each job; it calls ``on_stop`` when it is asked to stop."""

    on_stop: Callable[[], None]

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self.on_stop()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def execute_job(self, job: Job, queue: Queue) -> None:
        # The bell has woken our worker already: its requests go first.
        time.sleep(STEP_ASIDE)
        super().execute_job(job, queue)


def listen(state: State, on_stop: Callable[[], None]) -> None:
    """Run RQ's jobs in this process, each of which wakes its worker.

    It returns when Redis is away, and when RQ gets SIGTERM or SIGINT; then ``on_stop`` is called.
    """
    assert state.settings.redis_url is not None
    try:
        redis = Redis.from_url(state.settings.redis_url)
        queue = Queue(state.settings.queue, connection=redis)
        listener = _Listener([queue], connection=redis)
        listener.on_stop = on_stop
        with state.app.app_context():
            listener.work(logging_level="WARNING")
    except (RedisError, OSError) as failure:
        log.warning("no bell (%s); looking every second instead", type(failure).__name__)
