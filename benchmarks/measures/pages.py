"""A page of ``messages()`` in a long history: page 1,000 against page 1, for every filter."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask

from flask_communication import SMS

from .. import history
from ..figures import Figure, alternated, judged
from . import Run

# Each filter leaves at least 1,000 pages of this length, or the last page there is is taken.
LENGTH = 50


def measure(run: Run) -> list[Figure]:
    """Compare late and first pages.

    Where there is only one page, compare it with a short history's.
    """
    found: list[Figure] = []
    for kind in run.databases:
        long = history.of(run.ground, kind, run.number(1_000_000, 100_000), queued=500)
        for name, filters in _filters().items():
            found += _compared(run, kind, long, name, filters)
    return found


def _filters() -> dict[str, dict[str, Any]]:
    now = datetime.now(UTC)
    half = timedelta(weeks=78)
    return {
        "no filter": {},
        "a common status": {"status": "delivered"},
        "a status of 1 in 10": {"status": "undelivered"},
        "a status nobody has": {"status": "cancelled"},
        "a recipient": {"destination": "+919900010003"},
        "a recipient and a status": {"destination": "+919900010013", "status": "undelivered"},
        # Here the long history has 1,000 messages of the recipient, and the short one 10.
        "a recipient and a status they never had": {
            "destination": "+919900010013",
            "status": "delivered",
        },
        "a configuration": {"key": "second"},
        "a configuration and a status": {"key": "second", "status": "undelivered"},
        "a configuration and a status it never had": {"key": "second", "status": "delivered"},
        "since, half of the time": {"since": now - half},
        "until, half of the time": {"until": now - half},
        "a day, long ago": {"since": now - half, "until": now - half + timedelta(days=1)},
        "a status, until": {"status": "undelivered", "until": now - half},
    }


def _compared(run: Run, kind: str, app: Flask, name: str, filters: dict[str, Any]) -> list[Figure]:
    with app.app_context():
        cursor, number = _late(filters, 1000)
    short = history.of(run.ground, kind, 10_000)
    if number > 1:
        takers = {
            f"{name}: page {number:,}": lambda: _time(app, filters, cursor),
            f"{name}: page 1": lambda: _time(app, filters, None),
        }
    else:
        takers = {
            f"{name}: the only page": lambda: _time(app, filters, None),
            f"{name}: among 10,000 messages": lambda: _time(short, filters, None),
        }
    runs = alternated(run.number(15, 7), takers)
    figures = [Figure("messages()", told, kind, "ms", taken) for told, taken in runs.items()]
    return judged(figures, {figures[1].name: "<= 1.5"})


def _late(filters: dict[str, Any], wanted: int) -> tuple[str | None, int]:
    """Turn pages until the wanted one; long steps, because only the cursor matters."""
    cursor, number, step = None, 1, 10
    while number < wanted:
        page = SMS.messages(**filters, after=cursor, limit=LENGTH * step)
        if page.next is None:
            return cursor, number
        cursor, number = page.next, number + step
    return cursor, number


def _time(app: Flask, filters: dict[str, Any], after: str | None) -> float:
    with app.app_context():
        begun = time.perf_counter()
        SMS.messages(**filters, after=after, limit=LENGTH)
        return (time.perf_counter() - begun) * 1000
