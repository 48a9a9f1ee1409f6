"""Finding due work: with a million finished messages against a thousand."""

from __future__ import annotations

import time

from flask_communication.configs.state import State, state_of
from flask_communication.delivery import outbox

from .. import history
from ..figures import Figure, alternated, judged
from . import Run


def measure(run: Run) -> list[Figure]:
    """Compare the claim, and the question when the next message is due."""
    found: list[Figure] = []
    for kind in run.databases:
        states = {
            f"with {number:,} finished": state_of(history.of(run.ground, kind, number, queued=500))
            for number in (run.number(1_000_000, 100_000), 1000)
        }
        turns = 20 if run.quick else 60
        for what, look in (("claim of 20", _claim), ("next_due", _next_due)):
            takers = {
                name: (lambda state=state, look=look: look(state)) for name, state in states.items()
            }
            runs = alternated(turns, takers)
            figures = [
                Figure(f"finding: {what}", name, kind, "ms", taken) for name, taken in runs.items()
            ]
            found += judged(figures, {figures[1].name: "<= 1.5"})
    return found


def _claim(state: State) -> float:
    # Rolled back, so that every turn finds the same work.
    with state.database.engine.connect() as connection:
        begun = time.perf_counter()
        rows = outbox.claim(connection, 20)
        taken = time.perf_counter() - begun
        connection.rollback()
    assert len(rows) == 20
    return taken * 1000


def _next_due(state: State) -> float:
    with state.database.read() as connection:
        begun = time.perf_counter()
        outbox.next_due(connection)
        return (time.perf_counter() - begun) * 1000
