"""The memory of one worker process over 100,000 messages."""

from __future__ import annotations

from pathlib import Path

from .. import contest
from ..figures import Figure
from ..ground import WORKER_CPUS, running, until
from . import Run


def measure(run: Run) -> list[Figure]:
    """Compare what it holds at the end with what it held after the first 10,000."""
    found: list[Figure] = []
    number = run.number(100_000, 20_000)
    for kind in run.databases:
        _, env = contest.loaded(run.ground, kind, number)
        run.ground.reset()
        with running(run.ground, contest.WORKER, WORKER_CPUS, **env) as worker:
            until(lambda: run.ground.stats()["count"] >= 10_000, every=0.05)
            before = _resident(worker.pid)
            until(lambda: run.ground.stats()["count"] >= number, every=0.05)
            after = _resident(worker.pid)
        grown = Figure("memory", f"grown from 10,000 to {number:,} messages", kind, "MB", [after - before])
        grown.target = "<= 10"
        found += [Figure("memory", "after 10,000 messages", kind, "MB", [before]), grown]
    return found


def _resident(pid: int) -> float:
    line = next(
        one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1024
