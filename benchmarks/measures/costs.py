"""The processor time a message takes of each process, to plan with (PostgreSQL, with Redis)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlalchemy import create_engine, text

from flask_communication import SMS

from .. import contest, history
from ..figures import Figure
from ..ground import KEY, WORKER_CPUS, processor_seconds, running, until
from ..host import make, prepare
from . import Run

Spent = Callable[[], float]
# What a standby has to be sent.
LOG = "PostgreSQL's write-ahead log"


def measure(run: Run) -> list[Figure]:
    """Let a web process accept, a worker send, by itself and 500 a call, and ask for reports."""
    if "postgresql" not in run.databases:
        return []
    # Starts PostgreSQL.
    url = run.ground.database("postgresql")
    servers: dict[str, Spent] = {
        "PostgreSQL": lambda: processor_seconds(run.ground.postgresql_pid),
        "Redis": lambda: processor_seconds(run.ground.redis_pid),
        LOG: lambda: _logged(url) / 1000,
    }
    found = _accepting(run, url, servers)
    for name, provider, at_once in (("a call each", "plain", 50), ("500 a call", "bulk", 4)):
        found += _sending(run, name, provider, at_once, servers)
    return found + _asking(run, servers)


def _accepting(run: Run, url: str, servers: Mapping[str, Spent]) -> list[Figure]:
    app = make(url, f"{run.ground.stub}/plain", KEY, redis=run.ground.redis)
    prepare(app)

    def accept(number: int) -> None:
        for _ in range(number):
            with app.app_context():
                SMS.send_msg("+919999911111", contest.TEXT)

    accept(50)
    number = run.number(5000, 500)
    before = _all(servers | {"the web process": time.process_time})
    accept(number)
    return _figures(
        "accepting", before, _all(servers | {"the web process": time.process_time}), number
    )


def _sending(
    run: Run, name: str, provider: str, at_once: int, servers: Mapping[str, Spent]
) -> list[Figure]:
    number = run.number(30_000, 3000)
    url, env = contest.loaded(run.ground, "postgresql", number, provider, at_once)
    run.ground.reset()
    env["BENCH_REDIS"] = run.ground.redis
    before = _all(servers)
    with running(run.ground, contest.WORKER, WORKER_CPUS, **env) as worker:
        everybody = servers | {"the worker": lambda: processor_seconds(worker.pid)}
        until(lambda: run.ground.stats()["count"] > 0)
        before["the worker"] = everybody["the worker"]()
        # Looking costs PostgreSQL too.
        until(lambda: run.ground.stats()["count"] >= number, every=0.1)
        contest.until_sent(url, every=0.1)
        return _figures(f"sending, {name}", before, _all(everybody), number)


def _asking(run: Run, servers: Mapping[str, Spent]) -> list[Figure]:
    number = run.number(20_000, 2000)
    app = history.fresh(run.ground, "postgresql", number, number)
    everybody = servers | {"the worker": time.process_time}
    with app.app_context():
        before = _all(everybody)
        assert SMS.sync_delivery_report().updated == number
        return _figures("asking for a report", before, _all(everybody), number)


def _all(processes: Mapping[str, Spent]) -> dict[str, float]:
    return {name: spent() for name, spent in processes.items()}


def _figures(
    doing: str, before: Mapping[str, float], after: Mapping[str, float], number: int
) -> list[Figure]:
    found = []
    for name in after:
        a_message = [(after[name] - before[name]) / number * 1000]
        what, unit = ("log", "kB") if name == LOG else ("processor", "ms")
        found.append(Figure(f"{what}: {doing}", name, "postgresql", unit, a_message))
    return found


def _logged(url: str) -> float:
    """Return how many kilobytes the whole server has logged since it was made."""
    engine = create_engine(url)
    with engine.connect() as connection:
        written = connection.execute(
            text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        ).scalar_one()
    engine.dispose()
    return float(written) / 1000
