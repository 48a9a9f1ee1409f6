"""The public modules and names are those that docs/index.md lists; nothing else is promised."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

HOME = Path(__file__).parent.parent
INDEX = (HOME / "docs" / "index.md").read_text()
ROWS = dict(re.findall(r"^\| `(flask_communication[\w.]*)` \| (.*) \|$", INDEX, re.MULTILINE))
# The headings of these pages are compared with their modules in tests/test_docs.py.
BY_PAGE = {"flask_communication.errors", "flask_communication.signals"}
EXAMPLES = [*sorted((HOME / "examples").rglob("*.py"))]
PAGES = [HOME / "README.md", *sorted((HOME / "docs").glob("*.md"))]


def exported(module: ModuleType) -> set[str]:
    """Return `__all__`, or else the functions and classes that the module defines."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        name
        for name, thing in vars(module).items()
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == module.__name__
        and not name.startswith("_")
    }


@pytest.mark.parametrize("name", sorted(set(ROWS) - BY_PAGE))
def test_a_public_module_exports_exactly_the_names_that_the_documentation_lists(name: str) -> None:
    assert exported(importlib.import_module(name)) == set(re.findall(r"`(\w+)`", ROWS[name]))


def test_the_public_modules_include_the_promised_import_paths() -> None:
    providers = ("base", "http", "remote", "blueprint", "simulator", "smtp")
    promised = {"sms", "email", "testing", "errors", "signals", "jobs", "providers"}
    promised |= {f"providers.{name}" for name in providers}
    assert set(ROWS) == {
        "flask_communication",
        *(f"flask_communication.{name}" for name in promised),
    }


def imported(source: str) -> set[str]:
    """Return the modules of ours, or their submodules, that Python source imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if is_module(name)} or {node.module}
    return {name for name in found if name.split(".")[0] == "flask_communication"}


def is_module(name: str) -> bool:
    path = HOME.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.relative_to(HOME)))
def test_an_example_imports_only_public_modules(file: Path) -> None:
    assert imported(file.read_text()) <= set(ROWS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOME)))
def test_a_page_imports_only_public_modules(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        assert imported(block) <= set(ROWS), block
