"""The whole application: its commands, its login, its transaction, its migrations."""

from __future__ import annotations

import importlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import KEY

FULL = Path(__file__).parent.parent / "examples" / "full"
ROOT = "/communication"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a copy of the example, to run and to change."""
    shutil.copytree(
        FULL, tmp_path / "full", ignore=shutil.ignore_patterns("__pycache__", "instance")
    )
    return tmp_path / "full"


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    yield importlib.import_module("shop")
    for name in [name for name in sys.modules if name.split(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.fixture
def app(shop: Any, tmp_path: Path) -> Flask:
    app: Flask = shop.create_app(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'shop.sqlite'}",
        COMMUNICATION_ENCRYPTION_KEYS=[KEY],
    )
    for words in (
        ["db", "upgrade"],
        ["communication", "upgrade"],
        ["add-user"],
        ["communication", "config", "add", "--type", "sms", "--provider-pkg-name", "simulator"],
    ):
        result = app.test_cli_runner().invoke(args=words)
        assert result.exit_code == 0, result.output
    return app


def logged_in(app: Flask) -> FlaskClient:
    client = app.test_client()
    assert client.post("/login", data={"name": "ann", "password": "secret"}).status_code == 302
    return client


def test_an_order_that_commits_is_notified_once(shop: Any, app: Flask) -> None:
    made = app.test_client().post("/orders", data={"phone": "+919999911111"}).json
    client = logged_in(app)
    for _ in range(1200):
        found = client.get(f"{ROOT}/messages/{made['sms']}").json["data"]  # type: ignore[index]
        with app.app_context():
            notified = shop.db.session.get(shop.models.Order, made["order"]).notified  # type: ignore[index]
        if found["status"] == "delivered" and notified:
            break
        time.sleep(0.05)
    assert (found["status"], notified) == ("delivered", True)
    assert len(client.get(f"{ROOT}/messages").json["data"]) == 1  # type: ignore[index]


def test_a_rolled_back_order_sends_nothing(app: Flask) -> None:
    data = {"phone": "+919999911111", "card": "declined"}
    assert app.test_client().post("/orders", data=data).status_code == 402
    assert logged_in(app).get(f"{ROOT}/messages").json["data"] == []  # type: ignore[index]


def test_strangers_see_nothing(app: Flask) -> None:
    client = app.test_client()
    assert client.post("/login", data={"name": "ann", "password": "guess"}).status_code == 403
    assert client.get(f"{ROOT}/messages").status_code == 403
    assert client.get(f"{ROOT}/config/list").status_code == 403


def test_its_migrations_leave_our_tables_alone(app: Flask, folder: Path) -> None:
    result = app.test_cli_runner().invoke(args=["db", "check"])
    assert result.exit_code == 0, result.output
    (script,) = (folder / "migrations" / "versions").glob("*.py")
    assert "communication" not in script.read_text()
