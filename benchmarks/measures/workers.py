"""Two worker processes against one, at a provider that takes 50 ms (PostgreSQL.

SQLite has one writer).
"""

from __future__ import annotations

from functools import partial

from .. import contest
from ..figures import OURS, Figure, alternated, judged
from . import Run


def measure(run: Run) -> list[Figure]:
    """Compare at 20 requests at once, where the provider is the limit."""
    if "postgresql" not in run.databases:
        return []
    number = run.number(6000, 1500)
    takers = {
        f"{workers} worker{'s'[: workers - 1]}": partial(
            contest.together, run.ground, "postgresql", number, 0.05, at_once=20, workers=workers
        )
        for workers in (2, 1)
    }
    runs = alternated(run.turns, takers)
    figures = [
        Figure("two workers", name, "postgresql", "SMS/s", taken, OURS)
        for name, taken in runs.items()
    ]
    return judged(figures, {"1 worker": ">= 1.8"})
