"""A client that openapi-python-client generates from openapi.json can make every request."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask

from flask_communication import SMS, Email
from flask_communication.configs import tokens
from flask_communication.configs.state import state_of
from flask_communication.email import incoming
from flask_communication.email.channel import CHANNEL
from flask_communication.providers.base import InboundEmail
from flask_communication.providers.simulator import Simulator
from tests.support.apps import install, work

MakeApp = Callable[..., Flask]
TO, ANN = "+919999911111", "ann@example.com"
NAME = "generated_communication_client"


@pytest.fixture
def app(make_app: MakeApp, upgraded_sqlite_url: str) -> Iterator[Flask]:
    allowed = ["+1", "+91"]
    app = make_app(upgraded_sqlite_url, authorize=None, COMMUNICATION_ALLOWED_COUNTRIES=allowed)
    install(app, Simulator(), key="otp")
    install(app, Simulator(), type="email", is_default=True)
    with app.app_context():
        yield app


@pytest.fixture
def headers(app: Flask) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.create(state_of(app), 'client', ['*'])}"}


@pytest.fixture
def generated(
    app: Flask, headers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    document = app.test_client().get("/communication/openapi.json", headers=headers).json
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    # Otherwise it formats what it has made.
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")
    # A warning says what it left out.
    subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"),
            *("--path", "openapi.json", "--config", "config.yaml", "--output-path", NAME),
            *("--meta", "none"),
        ],
        cwd=tmp_path,
        check=True,
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(NAME)
    for name in [one for one in sys.modules if one.startswith(NAME)]:
        del sys.modules[name]


def received(app: Flask) -> str:
    arrival = incoming.parse(1, InboundEmail("1", b"From: ann@example.com\r\n\r\nHello"))
    with state_of(app).database.write() as connection:
        return str(incoming.store(connection, CHANNEL, 1, [arrival])[0]["uuid"])


def requests(app: Flask, generated: Any) -> dict[str, dict[str, Any]]:
    """Return the arguments of a request to each endpoint, in an order that works."""
    models = importlib.import_module(f"{NAME}.models")
    file = importlib.import_module(f"{NAME}.types").File
    email = Email(to=ANN, subject="Hi", html="<p>Hi</p>", sender="shop@example.com")
    unknown, held = SMS.send_msg("+15550100006", "Hello"), SMS.send_msg("+447400123456", "Hello")
    work(app)
    mail, sms = email.attach(b"x", "a.bin").send(), SMS.send_msg(TO, "Hello")
    form = models.EmailForm(
        to=[ANN, "bob@example.com"],
        subject="Your bill",
        body="It is attached",
        sender="shop@example.com",
        headers=models.EmailFormHeaders.from_dict({"X-Order": "17"}),
        priority=models.EmailFormPriority.HIGH,
        files=[file(BytesIO(b"%PDF"), "bill.pdf", "application/pdf")],
        inline=[file(BytesIO(b"x"), "logo.png", "image/png")],
    )
    form["bill"] = file(BytesIO(b"%PDF"), "again.pdf", "application/pdf")
    number = "+919999922222"
    return {
        "post_config_create": {
            "body": models.ConfigCreate(models.ConfigCreateType.SMS, provider_pkg_name="simulator")
        },
        "post_config_update": {"body": models.ConfigUpdate(id=3, key="spare", weight=70)},
        "get_config_list": {"type_": models.GetConfigListType.SMS},
        "post_config_list": {"key": "spare"},
        "get_config_delete": {"id": "3"},
        "post_sms_send": {
            "body": models.SendSMS(destination=TO, msg="Hello", key="otp"),
            "idempotency_key": "order-17",
        },
        "post_sms_retry": {"body": models.RetrySMS(msg_uuid=sms)},
        "post_sms_delivery_report": {"body": models.Reports(msg_uuids=[sms])},
        "post_email_send": {"body": form},
        "post_email_retry": {"body": models.Retry(msg_uuid=mail)},
        "post_email_delivery_report": {"body": models.Reports(msg_uuids=[mail])},
        "post_email_sync_inbox": {"body": models.SyncInbox()},
        "get_email_html_one": {"uuid": mail, "images": "1"},
        "get_email_file_one_place": {"uuid": mail, "place": "0"},
        "get_messages": {"status": models.GetMessagesStatus.QUEUED, "limit": 10},
        "get_messages_one": {"uuid": mail},
        "get_messages_one_raw": {"uuid": received(app)},
        "post_messages_one_cancel": {"uuid": sms},
        "post_messages_one_release": {"uuid": held},
        "post_messages_one_resolve": {
            "uuid": unknown,
            "body": models.Resolve(models.ResolveDecision.DROP),
        },
        "post_suppressions": {
            "body": models.Suppress(number, reason=models.SuppressReason.COMPLAINT)
        },
        "get_suppressions": {"channel": models.GetSuppressionsChannel.SMS},
        "delete_suppressions": {"body": models.Unsuppress(number)},
        "get_health": {},
        "get_metrics": {},
        "get_openapi_json": {},
        "post_config_delete": {"body": models.ConfigDelete(id=1)},
        "delete_config_delete": {"id": "2"},
    }


def test_a_generated_client_can_make_every_request(
    app: Flask, headers: dict[str, str], generated: Any
) -> None:
    transport = httpx.WSGITransport(app=app)
    client = generated.Client(
        base_url="http://host/communication", headers=headers, httpx_args={"transport": transport}
    )
    package = importlib.import_module(f"{NAME}.api.default")
    made = {module.name for module in pkgutil.iter_modules(package.__path__)}
    given = requests(app, generated)
    assert set(given) == made
    for name, arguments in given.items():
        module = importlib.import_module(f"{NAME}.api.default.{name}")
        # This also parses the answer as it is described.
        answer = module.sync_detailed(client=client, **arguments)
        assert answer.status_code == 200, (name, answer.content)
        assert answer.parsed is not None, name
    bill = Email.messages(status="queued", destination="bob@example.com").items[0]
    assert bill.mail is not None
    names = {one.filename: one.content_id for one in bill.mail.attachments}
    assert names == {"bill.pdf": None, "again.pdf": None, "logo.png": "logo.png"}
