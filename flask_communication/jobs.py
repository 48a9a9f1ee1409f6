"""What RQ runs.

``rq worker`` imports :func:`attend`; ``rq cron flask_communication.jobs`` rings for it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from types import FrameType

from flask import Flask, current_app
from flask.cli import ScriptInfo
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.cron import register
from rq.job import Job

from .configs.state import State, state_of
from .delivery.worker.bell import JOB_BUDGET, JOB_TIMEOUT, TICK_EVERY
from .delivery.worker.worker import LINGER, Worker
from .errors import NotInitialised

log = logging.getLogger(__name__)

# RQ needs several milliseconds of the processor for a job, just when a message is to be dialled.
STEP_ASIDE = 0.03


def attend() -> None:
    """Attend to what is due: in this process's own worker, if it is one, else here and for a while.

    The application is the active one, or the one FLASK_APP names. A job carries no message and may
    run any number of times, at once or never: the table says what there is to do.
    """
    app = _application()
    state = state_of(app)
    if state.bell is not None:
        state.bell.answer()
    if state.worker is not None:
        state.worker.wake()
        return
    with app.app_context():
        _work(state)


def _work(state: State) -> None:
    worker = Worker(state, sweep_after=0.0)
    state.worker = worker
    try:
        worker.burst(budget=JOB_BUDGET, linger=LINGER)
    finally:
        state.worker = None
    if worker.is_work_due():
        # More than one job may do: let the next one, here or elsewhere, go on.
        state.ring()


class _Listener(SimpleWorker):
    """RQ's worker without a fork for each job; it also tells us when it is asked to stop."""

    on_stop: Callable[[], None]

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self.on_stop()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def execute_job(self, job: Job, queue: Queue) -> None:
        # Our worker has heard the ring that came with this job: first let it dial.
        time.sleep(STEP_ASIDE)
        super().execute_job(job, queue)


def listen(state: State, on_stop: Callable[[], None]) -> None:
    """Run RQ's jobs in this process, each of which wakes its worker, until Redis is away or we are stopped.

    RQ answers SIGTERM and SIGINT meanwhile, and ``on_stop`` is called.
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


def _application() -> Flask:
    if current_app:
        return current_app._get_current_object()  # type: ignore[attr-defined,no-any-return]
    named = os.environ.get("FLASK_APP")
    if named is None:
        raise NotInitialised(
            "no application is active; start this worker with FLASK_APP=… rq worker"
        )
    return ScriptInfo(app_import_path=named).load_app()


# `rq cron` knows no application when it reads this, so the queue's name comes from the environment.
register(
    attend,
    queue_name=os.environ.get("COMMUNICATION_QUEUE", "communication"),
    interval=int(TICK_EVERY),
    job_timeout=JOB_TIMEOUT,
    result_ttl=0,
)
