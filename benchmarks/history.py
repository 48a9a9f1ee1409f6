"""Databases with a long history.

Each is made once a run, and shared by the measures that only read it.
"""

from __future__ import annotations

from flask import Flask

from flask_communication.configs import store
from flask_communication.configs.state import state_of

from . import rows
from .ground import KEY, Ground
from .host import make, prepare

_made: dict[tuple[str, str, int, int, int], Flask] = {}


def of(ground: Ground, kind: str, finished: int, silent: int = 0, queued: int = 0) -> Flask:
    """Return an application whose database holds so many messages; see ``rows.fill``."""
    asked = (ground.stub, kind, finished, silent, queued)
    if asked not in _made:
        _made[asked] = fresh(ground, kind, finished, silent, queued)
    return _made[asked]


def fresh(ground: Ground, kind: str, finished: int, silent: int = 0, queued: int = 0) -> Flask:
    """Return one that nobody else uses, for measures that write."""
    app = make(ground.database(kind), f"{ground.stub}/plain", KEY)
    prepare(app)
    state = state_of(app)
    second = {
        "type": "sms",
        "provider": "",
        "provider_pkg_name": "stub",
        "key": "second",
        "config": {},
    }
    assert store.create(state, second) == 2
    with state.database.write() as connection:
        rows.fill(connection, finished, silent, queued)
    with state.database.engine.connect().execution_options(
        isolation_level="AUTOCOMMIT"
    ) as connection:
        rows.settle(connection)
    return app
