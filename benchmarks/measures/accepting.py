"""Accepting a message in the web request, against one bare ORM insert and commit.

And many at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from flask_communication import SMS
from flask_communication.configs.state import state_of
from flask_communication.storage.models import Message

from ..figures import Figure, alternated, judged
from ..ground import KEY, free_port
from ..host import make, prepare
from . import Run

BARE = "a bare ORM insert and commit"
BULK = 10_000


def measure(run: Run) -> list[Figure]:
    """Compare one message in an application context, and 10,000 at once with a loop."""
    found: list[Figure] = []
    for kind in run.databases:
        found += _one(run, kind) + _many(run, kind)
    return found


def _one(run: Run, kind: str) -> list[Figure]:
    apps = {
        "send_msg, without Redis": _app(run, kind, None),
        "send_msg, with Redis": _app(run, kind, run.ground.redis),
        "send_msg, Redis is dead": _app(run, kind, f"redis://127.0.0.1:{free_port()}/0"),
    }
    bare = state_of(_app(run, kind, None)).database.engine
    takers: dict[str, Callable[[], float]] = {name: _sender(app) for name, app in apps.items()}
    runs = alternated(run.number(1000, 200), takers | {BARE: lambda: _bare(bare)})
    against = Figure("accepting", BARE, kind, "ms", runs.pop(BARE), "the row, and nobody is told")
    told = "the row, checked; idempotency keys; workers are told"
    figures = []
    for name, taken in runs.items():
        mine = Figure("accepting", name, kind, "ms", taken, told, target="<= 1.3")
        mine.ratio = mine.value / against.value
        figures.append(mine)
    return [against, *figures]


def _app(run: Run, kind: str, redis: str | None) -> Flask:
    app = make(run.ground.database(kind), f"{run.ground.stub}/plain", KEY, redis=redis)
    prepare(app)
    return app


def _sender(app: Flask) -> Callable[[], float]:
    def send() -> float:
        with app.app_context():
            begun = time.perf_counter()
            SMS.send_msg("+919999911111", "Hello from the benchmark")
            return (time.perf_counter() - begun) * 1000

    return send


def _bare(engine: Engine) -> float:
    begun = time.perf_counter()
    now = datetime.now(UTC)
    with Session(engine) as session:
        session.add(
            Message(
                uuid=str(uuid4()), channel="sms", direction="out", status="queued", config_id=1,
                destination="+919999911111", body="Hello from the benchmark", due_at=now, fence=0,
                priority=5, tries=0,
                crashes=0, resends=0, expires_at=now + timedelta(hours=4), created_at=now,
                updated_at=now,
            )
        )  # fmt: skip
        session.commit()
    return (time.perf_counter() - begun) * 1000


def _many(run: Run, kind: str) -> list[Figure]:
    app = _app(run, kind, None)
    loop = run.number(1000, 200)
    takers = {
        "send_bulk of 10,000": lambda: _bulk(app),
        f"a loop of {loop:,} send_msg": lambda: _loop(app, loop),
    }
    runs = alternated(run.turns, takers)
    figures = [Figure("accepting", name, kind, "messages/s", taken) for name, taken in runs.items()]
    return judged(figures, {figures[1].name: ">= 20"})


def _bulk(app: Flask) -> float:
    items: list[dict[str, Any]] = [
        {"destination": f"+9199{n:08}", "msg": "Hello from the benchmark"} for n in range(BULK)
    ]
    with app.app_context():
        begun = time.perf_counter()
        SMS.send_bulk(items)
        return BULK / (time.perf_counter() - begun)


def _loop(app: Flask, number: int) -> float:
    with app.app_context():
        begun = time.perf_counter()
        for n in range(number):
            SMS.send_msg(f"+9199{n:08}", "Hello from the benchmark")
        return number / (time.perf_counter() - begun)
