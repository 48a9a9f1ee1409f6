"""What the README says is run, as a newcomer would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
TEXT = (HOME / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Give a folder with the README's application in it."""
    (app,) = blocks("python")
    (tmp_path / "app.py").write_text(app)
    return tmp_path


def run(folder: Path, *words: str) -> str:
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(HOME)}
    done = subprocess.run(
        words, cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_commands_work_one_after_the_other(shop: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line]
    said = [run(shop, "sh", "-c", line) for line in lines if line.startswith("flask ")]
    assert len(said) >= 4
    assert "queued" in said[-1]


def test_its_application_sends_if_and_only_if_it_commits(shop: Path) -> None:
    run(shop, "flask", "communication", "upgrade")
    run(
        shop,
        "flask",
        "communication",
        "config",
        "add",
        "--type",
        "sms",
        "--provider-pkg-name",
        "simulator",
    )
    code = (
        "import app, time\n"
        "uuid = app.app.test_client().post('/orders').json['sms']\n"
        "with app.app.app_context():\n"
        "    for _ in range(200):\n"
        "        if app.SMS.get(uuid).status in ('sent', 'delivered'): break\n"
        "        time.sleep(0.05)\n"
        "    print(app.SMS.get(uuid).status)\n"
    )
    assert run(shop, sys.executable, "-c", code).strip() in ("sent", "delivered")


def test_the_demo_ends_with_delivered() -> None:
    assert "make demo" in TEXT
    environ = {**os.environ, "ONCE": "1", "PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [sys.executable, HOME / "examples/quickstart.py"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("delivered")
