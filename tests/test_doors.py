"""The doors between the rooms are one-way, and the rooms are small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flask_communication

HOUSE = Path(flask_communication.__file__).parent
# A room may import only from rooms on lower floors.
FLOORS = [
    "errors status actions",
    "signals segments providers crashpoints complaints",
    "settings hush addresses",
    "bell vault database",
    "models",
    "outbox events registry history",
    "state circuits pace awaiting",
    "heartbeat retention",
    "vitals",
    "metrics",
    "configs tokens announce recipients",
    "routing",
    "verdicts messages drafting markup bounces files charsets",
    "mails limits suppression enclosures letters",
    "intake composing",
    "planning calls reports decisions receiving screening erasure",
    "rescue filing",
    "delivery story inbox",
    "worker sms email forecast diagnosis",
    "jobs",
    "service",
    "web cli testing",
    "extension",
    "__init__",
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}
MODULES = sorted(HOUSE.rglob("*.py"))
HEAVY = {"rq", "alembic", "flask_migrate", "phonenumbers", "pytest"}


def room(module: Path) -> str:
    return module.relative_to(HOUSE).parts[0].removesuffix(".py")


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if not is_for_types(child):
            yield child
            yield from nodes(child)


def imported_rooms(module: Path) -> Iterator[str]:
    depth = len(module.relative_to(HOUSE).parts) - 1
    for node in nodes(ast.parse(module.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        if node.level <= depth:
            yield room(module)
        elif node.module:
            yield node.module.split(".")[0]
        else:
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(HOUSE)))
def test_doors_open_downwards_only(module: Path) -> None:
    mine = room(module)
    for other in imported_rooms(module):
        assert other == mine or FLOOR[other] < FLOOR[mine], f"{mine} imports {other}"


def test_providers_know_nothing_but_errors_and_statuses() -> None:
    for module in MODULES:
        if room(module) == "providers":
            assert set(imported_rooms(module)) <= {"errors", "status", "providers"}, module


def test_every_room_has_a_floor_and_a_good_name() -> None:
    assert {room(module) for module in MODULES} == set(FLOOR)
    assert not set(FLOOR) & {"utils", "helpers", "managers", "common", "misc"}


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for module in MODULES:
        for node in ast.parse(module.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            heavy = {name.split(".")[0] for name in names} & HEAVY
            assert not heavy or (room(module), heavy) in (("jobs", {"rq"}), ("testing", {"pytest"})), module


def test_importing_the_package_loads_neither_rq_nor_alembic() -> None:
    code = "import sys, flask_communication; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in loaded.stdout.split()} & HEAVY


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(HOUSE)))
def test_rooms_are_small_and_typed(module: Path) -> None:
    source = module.read_text()
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, node.name
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_the_public_names_are_there_in_order() -> None:
    assert list(flask_communication.__all__) == sorted(flask_communication.__all__)
    assert all(hasattr(flask_communication, name) for name in flask_communication.__all__)
