"""A worker process, as ``flask communication worker`` is one.

And the application that it serves.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_communication import Communication
from flask_communication.configs.state import state_of
from flask_communication.delivery import outbox, outcomes
from flask_communication.delivery.worker import dispatcher, schedule, sending, worker
from flask_communication.delivery.worker.process import serve


@dataclass(frozen=True)
class Deployment:
    """Where everything is, and how long a lease lasts (seconds)."""

    url: str
    provider: str
    redis: str | None
    lease: float


def shorten(lease: float) -> None:
    """Let all waits of this process be as much shorter as the lease is; not for production.

    They are constants of modules, read when they are used. At the true lease nothing changes.
    """
    share = lease / outbox.LEASE
    outbox.LEASE = lease
    sending.DEADLINE *= share
    dispatcher.DEADLINE = sending.DEADLINE  # type: ignore[attr-defined]
    schedule.RESCUE_EVERY *= share
    worker.AFTER_A_FAILURE *= share
    outcomes.BACKOFF = tuple(step * share for step in outcomes.BACKOFF)
    outcomes.REPEATS = tuple(step * share for step in outcomes.REPEATS)


def make_app(deployment: Deployment) -> Flask:
    """Make the application; the provider sees by its address which process calls."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="of a test",
        SQLALCHEMY_DATABASE_URI=deployment.url,
        COMMUNICATION_REDIS_URL=deployment.redis,
        COMMUNICATION_EMBEDDED_WORKER=False,
        COMMUNICATION_CONCURRENCY=4,
        COMMUNICATION_PROVIDERS={"chaos": {"url": f"{deployment.provider}/{os.getpid()}"}},
    )
    Communication(app, SQLAlchemy(app))
    return app


def work(deployment: Deployment) -> None:
    """Attend until killed."""
    logging.disable(logging.CRITICAL)
    shorten(deployment.lease)
    app = make_app(deployment)
    provider = state_of(app).registry.find("chaos")
    provider._http.deadline = sending.DEADLINE  # type: ignore[attr-defined]
    with app.app_context():
        serve(state_of(app))
