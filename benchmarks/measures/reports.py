"""Ask for every open delivery report: many open in a long history, against few in a short one."""

from __future__ import annotations

import time

from flask_communication import SMS

from .. import history
from ..figures import Figure, alternated, judged
from . import Run


def measure(run: Run) -> list[Figure]:
    """Compare the cost of one open message; the databases are made anew for each turn."""
    found: list[Figure] = []
    much, little = ((50_000, 1_000_000), (5000, 10_000))
    if run.quick:
        much = (10_000, 100_000)
    for kind in run.databases:
        takers = {
            f"{silent:,} open among {total:,}": (
                lambda kind=kind, silent=silent, total=total: _cost(run, kind, silent, total)
            )
            for silent, total in (much, little)
        }
        runs = alternated(run.number(2, 1), takers)
        figures = [
            Figure("sync_delivery_report", name, kind, "ms each", taken)
            for name, taken in runs.items()
        ]
        found += judged(figures, {figures[1].name: "<= 1.5"})
    return found


def _cost(run: Run, kind: str, silent: int, total: int) -> float:
    app = history.fresh(run.ground, kind, total - silent, silent)
    with app.app_context():
        begun = time.perf_counter()
        result = SMS.sync_delivery_report()
        taken = time.perf_counter() - begun
    assert (result.asked, result.updated, result.open) == (silent, silent, 0), result
    return taken / silent * 1000
