"""The wheel and the sdist work outside of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

HOME = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())
CODE = """
import sys
from pathlib import Path
from flask import Flask
import flask_communication, flask_communication.migrations
from flask_communication import SMS, Communication
from flask_communication.configs import store
from flask_communication.delivery.worker.worker import Worker
assert str(Path(flask_communication.__file__)).startswith(sys.argv[1]), flask_communication.__file__
app = Flask("outside")
app.config["COMMUNICATION_DATABASE_URL"] = "sqlite:///" + sys.argv[1] + "/outside.sqlite"
app.config["COMMUNICATION_EMBEDDED_WORKER"] = False
communication = Communication(app, authorize=lambda action, resource=None: True)
communication.upgrade(app)
state = app.extensions["communication"]
store.create(state, {"type": "sms", "provider": "", "provider_pkg_name": "simulator", "config": {}})
with app.app_context():
    uuid = SMS.send_msg("+919999911111", "Hello")
    Worker(state).burst()
    print(SMS.get(uuid).status)
assert app.test_client().get("/communication/static/communication.css").status_code == 200
page = app.test_client().get(
    "/communication/config/delete?id=1", headers={"Accept": "text/html", "Cookie": "a=b"})
"""


def copy_of_the_source(folder: Path) -> Path:
    """Copy what git knows, as a release would have it."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=HOME, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (HOME / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HOME / name, folder / name)
    return folder


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_release_installs_and_sends_outside_of_the_checkout(tmp_path: Path, kind: str) -> None:
    source = copy_of_the_source(tmp_path / "source")
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        f"--{kind}",
        "--outdir",
        tmp_path / "dist",
    ]
    done = subprocess.run([*build, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (release,) = (tmp_path / "dist").iterdir()
    if kind == "wheel":
        names = zipfile.ZipFile(release).namelist()
        for wanted in (
            "py.typed",
            "migrations/script.py.mako",
            "templates/communication/base.html",
        ):
            assert f"flask_communication/{wanted}" in names
        assert not [
            name for name in names if name.startswith(("tests/", "examples/", "migrations/"))
        ]
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, release], check=True, capture_output=True)
    environ = {**os.environ, "PYTHONPATH": str(target)}
    told = subprocess.run(
        [sys.executable, "-c", CODE, str(target)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == "sent"


def packages_on_disk() -> set[str]:
    """Return every folder with Python source, by the name under which it is installed."""
    ours = {file.parent for file in (HOME / "flask_communication").rglob("*.py")}
    names = {".".join(folder.relative_to(HOME).parts) for folder in ours}
    history = {file.parent for file in (HOME / "migrations").rglob("*.py")}
    return names | {
        ".".join(("flask_communication", *folder.relative_to(HOME).parts)) for folder in history
    }


def test_setup_cfg_lists_every_package_in_order() -> None:
    setup = ConfigParser()
    setup.read(HOME / "setup.cfg")
    listed = setup["options"]["packages"].split()
    assert set(listed) == packages_on_disk()
    assert len(listed) == len(set(listed))


def test_every_folder_of_the_package_has_an_init_file() -> None:
    folders = {file.parent for file in (HOME / "flask_communication").rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def dependency_lists() -> dict[str, list[str]]:
    project = PYPROJECT["project"]
    return {"dependencies": project["dependencies"], **project["optional-dependencies"]}


@pytest.mark.parametrize("name", list(dependency_lists()))
def test_no_dependency_is_listed_twice(name: str) -> None:
    names = [Requirement(line).name.lower().replace("_", "-") for line in dependency_lists()[name]]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("name", list(dependency_lists()))
def test_every_dependency_has_a_lower_bound(name: str) -> None:
    for line in dependency_lists()[name]:
        wanted = Requirement(line)
        bounds = {one.operator for one in wanted.specifier}
        assert ">=" in bounds or wanted.name == PYPROJECT["project"]["name"], line
