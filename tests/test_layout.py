"""One folder a noun: few entries, small modules; import-linter checks the doors."""

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


FOLDERS = sorted({module.parent for module in MODULES} - {HOUSE})
MOST_ENTRIES, MOST_MODULES, MOST_LINES, MOST_ANY = 16, 9, 400, 150
# Values of JSON, rows of SQL: what comes over these borders has no type of ours.
BORDERS = {"Mapping", "Row", "RowMapping", "Select", "dict"}


def test_the_top_of_the_package_has_few_entries_each_a_noun() -> None:
    data = {"static", "templates", "py.typed", "__pycache__"}
    entries = {one.name.removesuffix(".py") for one in HOUSE.iterdir()} - data
    assert len(entries) <= MOST_ENTRIES
    assert not entries & {"utils", "helpers", "managers", "common", "misc", "core"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(HOUSE)))
def test_a_folder_has_two_to_nine_modules(folder: Path) -> None:
    entries = [one for one in folder.iterdir() if one in FOLDERS or one.suffix == ".py"]
    modules = [one for one in entries if one.suffix and one.stem != "__init__"]
    assert len(entries) - 1 >= 2
    assert len(modules) <= MOST_MODULES


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(HOUSE)))
def test_modules_are_small_and_their_functions_short_and_typed(module: Path) -> None:
    source = module.read_text()
    assert len(source.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, node.name
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def untyped(node: ast.AST, is_border: bool = False) -> int:
    """Count the uses of Any, save as the value of a mapping, a dictionary or a row."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        return untyped(node.slice, is_border or node.value.id in BORDERS)
    if isinstance(node, ast.Name):
        return int(node.id == "Any" and not is_border)
    return sum(untyped(child, is_border) for child in ast.iter_child_nodes(node))


def test_few_things_have_any_type() -> None:
    counts = {module: untyped(ast.parse(module.read_text())) for module in MODULES}
    assert sum(counts.values()) < MOST_ANY, sorted(counts.items(), key=lambda one: -one[1])[:9]


def test_the_public_names_are_there() -> None:
    assert all(hasattr(flask_communication, name) for name in flask_communication.__all__)
