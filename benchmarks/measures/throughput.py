"""SMS a second through one worker process: at once, after 50 ms, and with many messages a call."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial

from .. import contest
from ..figures import OURS, Figure, alternated, judged
from ..ground import WORKER_CPUS, Ground
from . import Run

RAW = "none at all: a kill loses or repeats 500"


def measure(run: Run) -> list[Figure]:
    """Compare with the peers and with the limits."""
    found: list[Figure] = []
    for kind in run.databases:
        found += _at_once(run, kind) + _after_50_ms(run, kind) + _bulk(run, kind)
    return found


def _contest(
    run: Run, kind: str, delay: float, threads: int, names: list[str], number: int
) -> dict[str, Callable[[], float]]:
    known = contest.threads(threads)
    return {
        known[name].name: partial(
            contest.peer, run.ground, known[name], kind, _fewer(name, number), delay
        )
        for name in names
        if not (name == "procrastinate" and kind == "sqlite")
    }


def _fewer(name: str, number: int) -> int:
    return number // 5 if name == "rq" else number


def _figures(
    measure: str, kind: str, runs: dict[str, list[float]], extra: dict[str, str]
) -> list[Figure]:
    told = {one.name: one.guarantees for one in contest.threads(50).values()}
    told |= {one.name: one.guarantees for one in contest.threads(100).values()} | extra
    return [Figure(measure, name, kind, "SMS/s", taken, told[name]) for name, taken in runs.items()]


def _at_once(run: Run, kind: str) -> list[Figure]:
    number = run.number(1500, 600)
    peers = (
        ["dramatiq", "celery"]
        if run.quick
        else ["dramatiq", "celery", "huey", "procrastinate", "rq"]
    )
    takers: dict[str, Callable[[], float]] = {
        "ours, 50 at once": partial(contest.ours, run.ground, kind, number * 4, 0.0),
        **_contest(run, kind, 0.0, 50, peers, number),
        "raw asyncio sockets": partial(contest.raw, run.ground, kind, number * 4, 0.0),
    }
    figures = _figures(
        "at once",
        kind,
        alternated(run.turns, takers),
        {"ours, 50 at once": OURS, "raw asyncio sockets": RAW},
    )
    return judged(figures, {"Dramatiq, 50 threads": ">= 4", "Celery, 50 threads": ">= 5"})


def _after_50_ms(run: Run, kind: str) -> list[Figure]:
    number = run.number(1500, 600)
    takers: dict[str, Callable[[], float]] = {
        "ours, 100 at once": partial(contest.ours, run.ground, kind, number * 4, 0.05, at_once=100),
        **_contest(run, kind, 0.05, 50, ["dramatiq"], number),
        **_contest(run, kind, 0.05, 100, ["dramatiq"], number),
        "raw asyncio sockets": partial(contest.raw, run.ground, kind, number * 4, 0.05),
    }
    figures = _figures(
        "after 50 ms",
        kind,
        alternated(run.turns, takers),
        {"ours, 100 at once": OURS, "raw asyncio sockets": RAW},
    )
    targets = {
        "Dramatiq, 50 threads": ">= 3",
        "Dramatiq, 100 threads": ">= 3",
        "raw asyncio sockets": ">= 0.65",
    }
    return judged(figures, targets)


def _bulk(run: Run, kind: str) -> list[Figure]:
    number = run.number(20_000, 5000)
    known = contest.threads(50)["dramatiq"]
    takers: dict[str, Callable[[], float]] = {
        "ours, 500 a call": partial(contest.ours, run.ground, kind, number, 0.0, "bulk", 4),
        known.name: partial(contest.peer, run.ground, known, kind, run.number(1500, 600), 0.0),
        "the rows, no HTTP": partial(_rows, run.ground, kind, number),
    }
    extra = {"ours, 500 a call": OURS, "the rows, no HTTP": OURS}
    figures = _figures("bulk", kind, alternated(run.turns, takers), extra)
    return judged(figures, {known.name: ">= 20", "the rows, no HTTP": ">= 0.6"})


def _rows(ground: Ground, kind: str, number: int) -> float:
    _, env = contest.loaded(ground, kind, number)
    command = [
        "taskset",
        "-c",
        ",".join(map(str, WORKER_CPUS)),
        contest.PYTHON,
        "-m",
        "benchmarks.limits",
        "rows",
    ]
    environment = ground.environment(**env)
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    return float(done.stdout)
