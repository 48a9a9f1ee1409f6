"""What RQ runs.

``rq worker`` imports :func:`attend`; ``rq cron flask_communication.jobs`` rings for it.
"""

from __future__ import annotations

import os

from flask import Flask, current_app
from flask.cli import ScriptInfo
from rq.cron import register

from .configs.state import State, state_of
from .delivery.worker.bell import JOB_BUDGET, JOB_TIMEOUT, TICK_EVERY
from .delivery.worker.worker import LINGER, Worker
from .errors import NotInitialised

__all__ = ["attend"]


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
