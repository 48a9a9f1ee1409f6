"""The senders: our worker, the peers, the limits. Each takes N rows from queued to sent, timed from
the first call that reaches the provider to the moment the last row says ``sent``."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import create_engine, text

from flask_communication import SMS

from . import peers
from .ground import KEY, SERVER_CPUS, WORKER_CPUS, Ground, running, until
from .host import make, prepare

# Seconds until messages are accepted and workers have started.
READY = 8.0
TEXT = "Hello from the benchmark"
PYTHON = sys.executable


@dataclass(frozen=True)
class Contestant:
    """A peer: how its one worker is started, and what it promises."""

    name: str
    module: str
    command: Sequence[str]
    guarantees: str


def threads(number: int) -> dict[str, Contestant]:
    """Return the peers, with ``number`` threads where they have threads."""
    at = "benchmarks.peers.with_"
    none = "retries; a row may be sent twice, no attempts"
    found = [
        Contestant(
            f"Dramatiq, {number} threads", "with_dramatiq",
            ["dramatiq", f"{at}dramatiq", "--processes", "1", "--threads", str(number)], none,
        ),
        Contestant(
            f"Celery, {number} threads", "with_celery",
            [
                *("celery", "-A", f"{at}celery", "worker", "-P", "threads"),
                *("-c", str(number), "-l", "WARNING"),
            ],
            "none: a job is lost with its worker (acks early, the default)",
        ),
        Contestant(
            f"Huey, {number} threads", "with_huey",
            ["huey_consumer", f"{at}huey.huey", "-k", "thread", "-w", str(number), "-q"],
            "none: a job is lost with its worker",
        ),
        Contestant(
            f"Procrastinate, {number} threads", "with_procrastinate",
            ["procrastinate", f"--app={at}procrastinate.app", "worker", "-c", str(number)],
            "jobs in PostgreSQL; a stalled job is taken up by hand",
        ),
        Contestant(
            "RQ SimpleWorker", "with_rq",
            ["rq", "worker", "--worker-class", "rq.SimpleWorker", "bench", "--quiet"],
            "none: a job is lost with its worker (810 s until noticed)",
        ),
    ]  # fmt: skip
    return {one.module.removeprefix("with_"): one for one in found}


def peer(ground: Ground, one: Contestant, kind: str, number: int, delay: float) -> float:
    """Let a peer work off ``number`` rows; return messages a second."""
    url = ground.database(kind)
    env = {
        "BENCH_DATABASE": url,
        "BENCH_STUB": f"{ground.stub}/plain",
        "BENCH_REDIS": ground.redis,
        # So that forked or threaded, RQ's worker has its imports done before.
        "RQ_REDIS_URL": ground.redis,
    }
    ground.reset(delay)
    peers.fill(url, number)
    put = [PYTHON, "-m", "benchmarks.peers.put", one.module, str(number)]
    subprocess.run(put, check=True, env=ground.environment(**env), cwd=ground.folder)
    rate = _timed(ground, list(one.command), env, number, lambda: peers.left)
    return rate(url)


def raw(ground: Ground, kind: str, number: int, delay: float) -> float:
    """Let raw asyncio sockets work off ``number`` rows; return messages a second."""
    url = ground.database(kind)
    ground.reset(delay)
    peers.fill(url, number)
    env = {"BENCH_DATABASE": url, "BENCH_STUB": f"{ground.stub}/plain"}
    return _timed(
        ground, [PYTHON, "-m", "benchmarks.limits", "raw"], env, number, lambda: peers.left
    )(url)


def ours(
    ground: Ground,
    kind: str,
    number: int,
    delay: float,
    provider: str = "plain",
    at_once: int = 50,
) -> float:
    """Let our worker work off ``number`` messages; return messages a second."""
    url, env = loaded(ground, kind, number, provider, at_once)
    ground.reset(delay)
    return _timed(ground, WORKER, env, number, lambda: ours_left)(url)


WORKER = ["flask", "--app", "benchmarks.host", "communication", "worker"]


def together(
    ground: Ground, kind: str, number: int, delay: float, at_once: int, workers: int
) -> float:
    """Let several of our workers, all ready when the messages are due, work them off.

    Return the rate.
    """
    due = datetime.now(UTC) + timedelta(seconds=READY)
    url, env = loaded(ground, kind, number, at_once=at_once, send_at=due)
    ground.reset(delay)
    with ExitStack() as stack:
        for _ in range(workers):
            # On any processor: two workers have no more of them than one.
            stack.enter_context(running(ground, WORKER, None, **env))
        return _rate(ground, number, url, ours_left)


def loaded(
    ground: Ground,
    kind: str,
    number: int,
    provider: str = "plain",
    at_once: int = 50,
    send_at: datetime | None = None,
) -> tuple[str, dict[str, str]]:
    """Accept ``number`` messages in a fresh database.

    Return its address, and a worker's environment.
    """
    url = ground.database(kind)
    app = make(url, f"{ground.stub}/{provider}", KEY)
    prepare(app)
    with app.app_context():
        for first in range(0, number, 10_000):
            SMS.send_bulk(
                [
                    {"destination": f"+9199{n:08}", "msg": TEXT, "send_at": send_at}
                    for n in range(first, min(number, first + 10_000))
                ]
            )
    app.extensions["communication"].database.engine.dispose()
    return url, {
        "BENCH_DATABASE": url,
        "BENCH_STUB": f"{ground.stub}/{provider}",
        "BENCH_CONCURRENCY": str(at_once),
    }


def ours_left(engine: object) -> int:
    with engine.connect() as connection:  # type: ignore[attr-defined]
        wanted = "SELECT count(*) FROM communication_message WHERE status <> 'sent'"
        return int(connection.execute(text(wanted)).scalar_one())


def _timed(
    ground: Ground,
    command: list[str],
    env: dict[str, str],
    number: int,
    counter: Callable[[], Callable[..., int]],
) -> Callable[[str], float]:
    def rate(url: str) -> float:
        with running(ground, command, WORKER_CPUS, **env):
            return _rate(ground, number, url, counter())

    return rate


def _rate(ground: Ground, number: int, url: str, left: Callable[..., int]) -> float:
    until(lambda: ground.stats()["count"] >= number, every=0.05)
    until_sent(url, left)
    ended = time.monotonic()
    return number / (ended - ground.stats()["first"])


def until_sent(url: str, left: Callable[..., int] = ours_left, every: float = 0.005) -> None:
    """Wait until no row is left."""
    engine = create_engine(url)
    until(lambda: left(engine) == 0, every=every)
    engine.dispose()


__all__ = [
    "SERVER_CPUS",
    "Contestant",
    "loaded",
    "ours",
    "peer",
    "raw",
    "threads",
    "together",
    "until_sent",
]
