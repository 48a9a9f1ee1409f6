"""What ``import flask_communication`` costs beyond Flask and Flask-SQLAlchemy."""

from __future__ import annotations

import os
import subprocess
import sys

from ..figures import Figure, alternated
from . import Run

CODE = """
import sys, time, flask, flask_sqlalchemy
begun = time.perf_counter()
import flask_communication
print((time.perf_counter() - begun) * 1000)
heavy = {"rq", "alembic", "flask_migrate", "phonenumbers"}
heavy &= {name.split(".")[0] for name in sys.modules}
assert not heavy, heavy
"""


def measure(run: Run) -> list[Figure]:
    """Take it in a fresh process each time, compiled as an installed package is."""
    _once()
    runs = alternated(run.number(15, 5), {"import flask_communication": _once})
    return [
        Figure("importing", name, "", "ms", taken, target="<= 60") for name, taken in runs.items()
    ]


def _once() -> float:
    environ = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    run = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, env=environ)
    return float(run.stdout)
