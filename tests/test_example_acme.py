"""The provider package to copy: its own tests pass, and it works in an application."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask, jsonify, request
from werkzeug.serving import make_server

from flask_communication import SMS
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.errors import NotSent, OutcomeUnknown, ProviderError, Refused
from flask_communication.providers.base import Accepted, OutboundSMS
from flask_communication.providers.http import Http
from tests.support.apps import MakeApp, install, work
from tests.support.waiting import ends_within

PACKAGE = Path(__file__).parent.parent / "examples" / "flask_communication_acme"


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
        str(PACKAGE),
        str(PACKAGE / "tests"),
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
    (row,) = store.listing(state_of(app))
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


class Loopback:
    """Acme's own servers, on this machine; a number's last digit says how they behave."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.over = threading.Event()
        vendor = Flask("acme")
        vendor.add_url_rule("/v1/messages", view_func=self.messages, methods=["POST"])
        vendor.add_url_rule("/v1/reports", view_func=self.reports, methods=["POST"])
        self.server = make_server("127.0.0.1", 0, vendor, threaded=True)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def messages(self) -> Any:
        body: dict[str, Any] = request.get_json()
        self.heard.append(body)
        if request.headers["Authorization"] != "Bearer CANARY":
            return jsonify(message="bad key"), 401
        behaviour = body["to"][-1]
        if behaviour == "9":
            self.over.wait(60)
        if behaviour == "4":
            return jsonify(message="slow down"), 429, {"Retry-After": "7"}
        status = {"2": 400, "5": 500}.get(behaviour, 200)
        return jsonify(id=f"acme-{len(self.heard)}"), status

    def reports(self) -> Any:
        return jsonify(
            reports=[{"id": one, "state": "DELIVRD"} for one in request.get_json()["ids"]]
        )


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    vendor = Loopback()
    thread = threading.Thread(target=vendor.server.serve_forever)
    thread.start()
    yield vendor
    vendor.over.set()
    vendor.server.shutdown()
    thread.join()
    vendor.server.server_close()


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a provider that is patient for half a second only."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    from flask_communication_acme import Acme

    provider = Acme()
    provider._http = Http(deadline=0.5, connect=0.5)
    return provider


def sms(number: str) -> OutboundSMS:
    return OutboundSMS(key="our-uuid", destination=number, msg="Hello")


def test_over_sockets_it_is_delivered(
    make_app: MakeApp, upgraded_sqlite_url: str, loopback: Loopback, acme: Any
) -> None:
    app = make_app(upgraded_sqlite_url)
    install(app, acme, config={"api_key": "CANARY", "base_url": loopback.address})
    with app.app_context():
        uuid = SMS.send_msg("+919999911111", "Hello")
        work(app)
        SMS.sync_delivery_report()
        assert SMS.get(uuid).status == "delivered"
    assert loopback.heard == [{"to": "+919999911111", "text": "Hello", "reference": uuid}]


@pytest.mark.parametrize(
    ("number", "kind", "status"),
    [
        ("+15550100002", Refused, 400),
        ("+15550100004", NotSent, 429),
        ("+15550100005", OutcomeUnknown, 500),
        ("+15550100009", OutcomeUnknown, None),
    ],
    ids=["refused", "throttled", "broken", "silent"],
)
@pytest.mark.usefixtures("any_address")
def test_over_sockets_trouble_has_its_outcome(
    loopback: Loopback, acme: Any, number: str, kind: type[ProviderError], status: int | None
) -> None:
    config = {"api_key": "CANARY", "base_url": loopback.address}
    with ends_within(5), pytest.raises(kind) as failure:
        acme.send_sms(sms(number), config)
    assert type(failure.value) is kind
    assert failure.value.http_status == status
    assert "CANARY" not in str(failure.value)
    assert getattr(failure.value, "retry_after", None) == (7 if status == 429 else None)
    assert len(loopback.heard) == 1


@pytest.mark.usefixtures("any_address")
def test_a_wrong_key_is_refused_and_nobody_listening_is_not_sent(
    loopback: Loopback, acme: Any
) -> None:
    with pytest.raises(Refused, match="401"):
        acme.send_sms(sms("+919999911111"), {"api_key": "WRONG-KEY", "base_url": loopback.address})
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(NotSent):
            acme.send_sms(sms("+919999911111"), {"api_key": "CANARY", "base_url": address})
    assert acme.send_sms(
        sms("+919999911111"), {"api_key": "CANARY", "base_url": loopback.address}
    ) == (Accepted("acme-2"))


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (httpx.ConnectTimeout, NotSent),
        (httpx.ConnectError, NotSent),
        (httpx.PoolTimeout, NotSent),
        (httpx.ReadTimeout, OutcomeUnknown),
        (httpx.WriteTimeout, OutcomeUnknown),
        (httpx.ReadError, OutcomeUnknown),
    ],
)
def test_each_timeout_has_its_outcome(
    monkeypatch: pytest.MonkeyPatch, trouble: type[httpx.TransportError], kind: type[ProviderError]
) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))
    from flask_communication_acme import Acme

    def fail(asked: httpx.Request) -> httpx.Response:
        raise trouble("so it is", request=asked)

    with pytest.raises(kind) as failure:
        Acme(httpx.MockTransport(fail)).send_sms(sms("+919999911111"), {"api_key": "CANARY"})
    assert type(failure.value) is kind
