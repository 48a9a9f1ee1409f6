"""What it costs to be watched: metrics and health, with a long history."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Flask

from flask_communication.configs.state import state_of
from flask_communication.delivery.monitor import health, metrics

from .. import history
from ..figures import Figure, alternated, judged
from . import Run


def measure(run: Run) -> list[Figure]:
    """Compare a million finished messages with a thousand."""
    found: list[Figure] = []
    for kind in run.databases:
        apps = {
            f"with {number:,} finished": history.of(run.ground, kind, number, queued=500)
            for number in (run.number(1_000_000, 100_000), 1000)
        }
        for what, look in LOOKS.items():
            takers = {name: _taker(app, look) for name, app in apps.items()}
            runs = alternated(5 if run.quick else 15, takers)
            figures = [
                Figure(f"watching: {what}", name, kind, "ms", taken) for name, taken in runs.items()
            ]
            found += judged(figures, {})
    return found


def _taker(app: Flask, look: Callable[[Flask], object]) -> Callable[[], float]:
    def take() -> float:
        begun = time.perf_counter()
        look(app)
        return (time.perf_counter() - begun) * 1000

    return take


def _counted_anew(app: Flask) -> None:
    health._counted.pop(state_of(app), None)  # noqa: SLF001
    metrics.expose(state_of(app))


def _health(app: Flask) -> None:
    answer = app.test_client().get("/communication/health")
    assert answer.status_code in (200, 503), answer.status_code


LOOKS: dict[str, Callable[[Flask], object]] = {
    "metrics, counted anew (once a minute)": _counted_anew,
    "metrics, as counted": lambda app: metrics.expose(state_of(app)),
    "health": _health,
}
