"""From accepting one message on an idle system to its arrival at the provider's door."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from flask_communication.configs.state import state_of

from .. import contest, peers
from ..figures import OURS, Figure
from ..ground import KEY, running, until
from ..host import make, prepare
from . import Run

Send = Callable[[], None]
OURS_SEND = """
import sys
from benchmarks.host import create_app
from flask_communication import SMS
app = create_app()
print("ready", flush=True)
for line in sys.stdin:
    with app.app_context():
        SMS.send_msg("+919999911111", "Hello from the benchmark")
"""
PEER_SEND = """
import sys
from sqlalchemy import text
from benchmarks.peers import engine, {module} as peer
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    with engine().begin() as connection:
        row = "INSERT INTO work VALUES (:id, '+919999911111', :body, 'queued', NULL)"
        connection.execute(text(row), {{"id": number, "body": "Hello from the benchmark"}})
    peer.put([number])
"""


def measure(run: Run) -> list[Figure]:
    """Compare with Celery and Dramatiq.

    One message at a time, at random moments, in alternated rounds.
    """
    found: list[Figure] = []
    for kind in run.databases:
        ways = {
            "flask communication worker, Redis": lambda kind=kind: _worker(run, kind),
            "Celery, 50 threads": lambda kind=kind: _peer(run, kind, "celery"),
            "Dramatiq, 50 threads": lambda kind=kind: _peer(run, kind, "dramatiq"),
            "plain rq worker, preloaded": lambda kind=kind: _rq(run, kind),
            "embedded worker, no Redis": lambda kind=kind: _embedded(run, kind),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(run.turns):
            for name, way in ways.items():
                with way() as send:
                    taken[name] += _latencies(run, send)
        found += _judged(kind, taken)
    return found


def _judged(kind: str, taken: dict[str, list[float]]) -> list[Figure]:
    guarantees = {
        name: one.guarantees for one in contest.threads(50).values() for name in [one.name]
    }
    figures = {
        name: Figure("latency p50", name, kind, "ms", runs, guarantees.get(name, OURS))
        for name, runs in taken.items()
    }
    mine = figures["flask communication worker, Redis"]
    for name in ("Celery, 50 threads", "Dramatiq, 50 threads"):
        figures[name].ratio = mine.value / figures[name].value
    figures["Celery, 50 threads"].target = "<= 1.2"
    figures["plain rq worker, preloaded"].target = "<= 100"
    figures["embedded worker, no Redis"].target = "<= 20"
    return list(figures.values())


def _latencies(run: Run, send: Send) -> list[float]:
    found: list[float] = []
    dice = random.Random(1)
    for number in range(run.number(25, 12) + 3):
        begun = time.monotonic()
        send()
        until(lambda seen=number: run.ground.stats()["count"] > seen, 30, every=0.02)
        found.append((run.ground.stats()["last"] - begun) * 1000)
        # Let everybody fall idle again, and be met at any moment of what it does by the clock.
        time.sleep(0.15 + dice.random() / 10)
    # The first ones open connections and read the manifest.
    return found[3:]


@contextlib.contextmanager
def _worker(run: Run, kind: str) -> Iterator[Send]:
    env = _host(run, kind) | {"BENCH_REDIS": run.ground.redis}
    with running(run.ground, contest.WORKER, None, **env), _sender(run, OURS_SEND, env) as send:
        yield send


@contextlib.contextmanager
def _rq(run: Run, kind: str) -> Iterator[Send]:
    env = _host(run, kind) | {"BENCH_REDIS": run.ground.redis}
    # The settings file of RQ imports the application before the first fork: that is "preloaded".
    command = [
        "rq",
        "worker",
        "--url",
        run.ground.redis,
        "-c",
        "benchmarks.preloaded",
        "communication",
    ]
    named = {"FLASK_APP": "benchmarks.preloaded"}
    with running(run.ground, command, None, **env, **named), _sender(run, OURS_SEND, env) as send:
        yield send


@contextlib.contextmanager
def _embedded(run: Run, kind: str) -> Iterator[Send]:
    with _sender(run, OURS_SEND, _host(run, kind) | {"BENCH_EMBEDDED": "1"}) as send:
        yield send


def _host(run: Run, kind: str) -> dict[str, str]:
    run.ground.reset()
    url = run.ground.database(kind)
    app = make(url, f"{run.ground.stub}/plain", KEY)
    prepare(app)
    state_of(app).database.engine.dispose()
    return {"BENCH_DATABASE": url, "BENCH_STUB": f"{run.ground.stub}/plain"}


@contextlib.contextmanager
def _peer(run: Run, kind: str, name: str) -> Iterator[Send]:
    run.ground.reset()
    one = contest.threads(50)[name]
    url = run.ground.database(kind)
    peers.fill(url, 0)
    env = {
        "BENCH_DATABASE": url,
        "BENCH_STUB": f"{run.ground.stub}/plain",
        "BENCH_REDIS": run.ground.redis,
    }
    code = PEER_SEND.format(module=one.module)
    with running(run.ground, list(one.command), None, **env), _sender(run, code, env) as send:
        yield send


@contextlib.contextmanager
def _sender(run: Run, code: str, env: dict[str, str]) -> Iterator[Send]:
    """Send one message for every line that a process of its own, the web process, is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=run.ground.environment(**env),
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    pipe = process.stdin
    process.stdout.readline()
    # The worker has been started before, and starts as long.
    time.sleep(3)
    try:
        yield lambda: print(file=pipe, flush=True)
    finally:
        pipe.close()
        process.wait()
