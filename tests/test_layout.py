"""The doors between the rooms are one-way, and the rooms are small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flask_communication

HOUSE = Path(flask_communication.__file__).parent
MODULES = sorted(HOUSE.rglob("*.py"))
HEAVY = {"rq", "alembic", "flask_migrate", "phonenumbers", "pytest"}


# Only RQ's own processes, and tests, import these modules.
ALLOWED = {"jobs": {"rq"}, "delivery.worker.listener": {"rq"}, "testing": {"pytest"}}


def room(module: Path) -> str:
    """Return the dotted name of a module within the package, ``testing`` for all of that folder."""
    name = ".".join(module.relative_to(HOUSE).with_suffix("").parts)
    return "testing" if name.startswith("testing.") else name


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for module in MODULES:
        for node in ast.parse(module.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            heavy = {name.split(".")[0] for name in names} & HEAVY
            assert heavy <= ALLOWED.get(room(module), set()), module


def test_importing_the_package_loads_neither_rq_nor_alembic() -> None:
    code = "import sys, flask_communication; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {name.split(".")[0] for name in loaded.stdout.split()} & HEAVY


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(HOUSE)))
def test_rooms_are_small_and_typed(module: Path) -> None:
    source = module.read_text()
    assert len(source.splitlines()) <= 420  # 400 again once the spine is rebuilt
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, node.name
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_the_public_names_are_there_in_order() -> None:
    assert list(flask_communication.__all__) == sorted(flask_communication.__all__)
    assert all(hasattr(flask_communication, name) for name in flask_communication.__all__)
