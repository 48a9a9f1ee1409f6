"""examples/full: the commands of its README, and what it shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from rigs import work
from sqlalchemy import inspect

from flask_communication import SMS
from flask_communication.database import Base
from flask_communication.history import VERSION_TABLE
from flask_communication.providers.simulator import Simulator
from flask_communication.state import state_of

FOLDER = Path(__file__).parent.parent / "examples" / "full"
OURS = set(Base.metadata.tables)


class Shop:
    """A copy of the example, with a database of its own, and its command line."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(
            FOLDER, folder, ignore=shutil.ignore_patterns("instance", "__pycache__"), dirs_exist_ok=True
        )
        self.folder = folder
        self.url = f"sqlite:///{folder / 'shop.sqlite'}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SHOP_")}
        self.environ = {
            **clean,
            "SHOP_SECRET_KEY": "of a test",
            "SHOP_SQLALCHEMY_DATABASE_URI": self.url,
            "SHOP_COMMUNICATION_EMBEDDED_WORKER": "false",
        }

    def flask(self, *words: str) -> str:
        """Run ``flask --app shop …`` as an operator does; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "shop", *words],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def set_up(self) -> None:
        """Do what the README says before ``flask run``."""
        self.flask("db", "upgrade")
        self.flask("communication", "upgrade")
        self.flask(
            *"communication config add --type sms --provider-pkg-name simulator --default".split(),
        )
        self.flask(*"user add ada --role admin --phone +15550100000 --password lovelace".split())
        self.flask(*"user add bob --password builder".split())


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.set_up()
    return shop


@pytest.fixture
def app(set_up: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    for name in [name for name in os.environ if name.startswith("SHOP_")]:
        monkeypatch.delenv(name)
    monkeypatch.syspath_prepend(str(FOLDER))
    from shop import create_app, db

    shutil.copy(set_up.folder / "shop.sqlite", tmp_path / "shop.sqlite")
    app = create_app(
        {
            "SECRET_KEY": "of a test",
            "SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'shop.sqlite'}",
            "COMMUNICATION_EMBEDDED_WORKER": False,
        }
    )
    yield app
    with app.app_context():
        db.engine.dispose()
    state_of(app).database.engine.dispose()


def logged_in(app: Flask, name: str = "ada", password: str = "lovelace") -> FlaskClient:
    client = app.test_client()
    answer = client.post("/login", data={"name": name, "password": password})
    assert answer.status_code == 302, answer.text
    return client


def accepted(app: Flask) -> list[Any]:
    with app.app_context():
        return list(SMS.messages().items)


def test_an_order_that_is_rolled_back_sends_nothing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(Simulator, "send_sms", lambda self, sms, config: called.append(sms))
    answer = logged_in(app).post("/orders", data={"item": "unicorn"})
    assert answer.status_code == 409
    assert work(app) == 0
    assert accepted(app) == []
    assert called == []


def test_an_order_that_is_saved_sends_once_and_is_marked_when_delivered(app: Flask) -> None:
    from shop.models import Order, db

    client = logged_in(app)
    answer = client.post("/orders", data={"item": "teapot"})
    assert answer.status_code == 201
    assert work(app) == 1
    assert work(app) == 0
    (message,) = accepted(app)
    assert (message.uuid, message.status) == (answer.json["sms"], "sent")
    assert "an SMS is on its way" in client.get("/").text

    ends = time.monotonic() + 15
    while accepted(app)[0].status != "delivered" and time.monotonic() < ends:
        time.sleep(0.2)
        with app.app_context():
            SMS.sync_delivery_report()
    assert accepted(app)[0].status == "delivered"
    with app.app_context():
        assert db.session.scalar(db.select(Order)).notified_at is not None
    assert "you got an SMS" in client.get("/").text


def test_a_customer_without_a_telephone_orders_in_silence(app: Flask) -> None:
    answer = logged_in(app, "bob", "builder").post("/orders", data={"item": "teapot"})
    assert answer.json["sms"] is None
    assert accepted(app) == []


def test_the_login_wall(app: Flask) -> None:
    stranger = app.test_client()
    for path in ("/", "/orders", "/nothing"):
        answer = stranger.open(path, method="POST" if path == "/orders" else "GET")
        assert (answer.status_code, answer.location) == (302, "/login"), path
    assert stranger.get("/login").status_code == 200
    assert stranger.post("/login", data={"name": "ada", "password": "wrong"}).status_code == 401
    assert stranger.post("/login", data={"name": "eve", "password": "nobody"}).status_code == 401
    assert stranger.get("/communication/messages").status_code == 403


def test_a_role_decides_what_a_person_may(app: Flask) -> None:
    from shop import people

    with app.app_context():
        people.add("olga", "operates", "operator")
    for name, password, reads, writes in (
        ("ada", "lovelace", 200, 200),
        ("olga", "operates", 200, 403),
        ("bob", "builder", 403, 403),
    ):
        client = logged_in(app, name, password)
        read = client.get("/communication/messages")
        assert read.status_code == reads, name
        cookie = client.get_cookie("communication_csrf", path="/communication/")
        answer = client.post(
            "/communication/config/create",
            json={"type": "sms", "provider": "", "provider_pkg_name": "simulator", "config": {}},
            headers={"X-CSRF-Token": cookie.value if cookie else ""},
        )
        assert answer.status_code == writes, (name, answer.text)


def test_both_histories_leave_each_other_alone(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    shop.set_up()
    assert "No new upgrade operations" in shop.flask("db", "check")

    model = "\n\nclass Coupon(db.Model):\n    id: Mapped[int] = mapped_column(primary_key=True)\n"
    with (shop.folder / "shop" / "models.py").open("a") as models:
        models.write(model)
    shop.flask("db", "migrate", "-m", "coupons")
    shop.flask("db", "upgrade")

    (script,) = (shop.folder / "migrations" / "versions").glob("*coupons.py")
    assert "communication" not in script.read_text()
    assert "create_table('coupon'" in script.read_text()
    assert tables(shop.url) >= OURS | {VERSION_TABLE, "alembic_version", "user", "order", "coupon"}
    shop.flask("communication", "upgrade")
    assert "simulator" in shop.flask("communication", "config", "list")


def tables(url: str) -> set[str]:
    from sqlalchemy import create_engine

    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_its_migrations_hold_nothing_of_ours() -> None:
    for script in (FOLDER / "migrations" / "versions").glob("*.py"):
        assert "communication" not in script.read_text()
