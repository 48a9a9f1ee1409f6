"""``formats`` is the lowest layer: pure functions that both storage and providers may use."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from flask_communication import formats

FOLDER = Path(formats.__file__).parent
LIBRARIES = {"idna", "nh3", "phonenumbers", "webencodings"}


@pytest.mark.parametrize("module", sorted(FOLDER.glob("*.py")), ids=lambda module: module.name)
def test_formats_imports_only_itself_errors_and_libraries(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            assert node.module == "errors", ast.unparse(node)
        assert not (isinstance(node, ast.ImportFrom) and node.level > 2), ast.unparse(node)
        for name in _absolute(node):
            known = name in LIBRARIES or name in sys.stdlib_module_names
            assert known, ast.unparse(node)


def _absolute(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {one.name.partition(".")[0] for one in node.names}
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {(node.module or "").partition(".")[0]}
    return set()
