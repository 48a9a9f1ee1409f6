"""The memory of one worker process over 100,000 messages, and what these take of the disk."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine, text

from .. import contest
from ..figures import Figure
from ..ground import WORKER_CPUS, running, until
from . import Run


def measure(run: Run) -> list[Figure]:
    """Compare what it holds at the end with what it held after the first 10,000."""
    found: list[Figure] = []
    number = run.number(100_000, 20_000)
    for kind in run.databases:
        url, env = contest.loaded(run.ground, kind, number)
        run.ground.reset()
        with running(run.ground, contest.WORKER, WORKER_CPUS, **env) as worker:
            until(lambda: run.ground.stats()["count"] >= 10_000, every=0.05)
            before = _resident(worker.pid)
            until(lambda: run.ground.stats()["count"] >= number, every=0.05)
            after = _resident(worker.pid)
        grown = Figure(
            "memory", f"grown from 10,000 to {number:,} messages", kind, "MB", [after - before]
        )
        grown.target = "<= 10"
        found += [Figure("memory", "after 10,000 messages", kind, "MB", [before]), grown]
        found.append(
            Figure("disk", "a message with its attempt", kind, "kB", [_on_disk(url) / number])
        )
    return found


def _on_disk(url: str) -> float:
    """Return kilobytes, with what PostgreSQL has not yet vacuumed."""
    sizes = {
        "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
        "postgresql": "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r'"
        " AND relname LIKE 'communication%'",
    }
    with create_engine(url).connect() as connection:
        return float(connection.execute(text(sizes[connection.dialect.name])).scalar_one()) / 1000


def _resident(pid: int) -> float:
    line = next(
        one
        for one in Path(f"/proc/{pid}/status").read_text().splitlines()
        if one.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1024
