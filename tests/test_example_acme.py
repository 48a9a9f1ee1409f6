"""The provider package to copy: its own tests pass, and it works in an application."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from flask import Flask
from rigs import install, work

from flask_communication import SMS, configs
from flask_communication.state import state_of

PACKAGE = Path(__file__).parent.parent / "examples" / "flask_communication_acme"
MakeApp = Callable[..., Flask]


def test_its_own_tests_pass() -> None:
    environ = {**os.environ, "PYTHONPATH": f"{PACKAGE}:{PACKAGE.parent.parent}"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        "--rootdir",
        PACKAGE,
        PACKAGE / "tests",
    ]
    done = subprocess.run(command, env=environ, cwd=PACKAGE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_sends_and_reports_in_an_application(
    make_app: MakeApp, upgraded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))
    from flask_communication_acme import Acme

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/messages":
            return httpx.Response(200, json={"id": "acme-1"})
        return httpx.Response(200, json={"reports": [{"id": "acme-1", "state": "DELIVRD"}]})

    app = make_app(upgraded_url)
    config = {"api_key": "CANARY", "base_url": "https://api.acme.example"}
    install(app, Acme(httpx.MockTransport(answer)), config=config)
    with app.app_context():
        uuid = SMS.send_msg("+919999911111", "Hello")
        work(app)
        SMS.sync_delivery_report()
        message = SMS.get(uuid)
    assert (message.status, message.provider_ref) == ("delivered", "acme-1")
    (row,) = configs.listing(state_of(app))
    assert row["config"] == {"api_key": "********", "base_url": "https://api.acme.example"}


def test_its_secret_does_not_follow_a_changed_address(
    make_app: MakeApp, upgraded_sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))
    from flask_communication_acme import Acme

    app = make_app(upgraded_sqlite_url)
    number = install(app, Acme(), config={"api_key": "CANARY"})
    answer = app.test_client().post(
        "/communication/config/update",
        json={"id": number, "config": {"base_url": "https://evil.example", "api_key": "********"}},
    )
    assert answer.status_code == 422
    assert "enter the secret again" in answer.get_data(as_text=True)
