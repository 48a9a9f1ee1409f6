"""``sms/…``: the provider contract."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from flask_communication import SMS
from flask_communication.configs import tokens
from flask_communication.configs.state import state_of
from flask_communication.storage.models import PRIORITIES
from tests.support.apps import install, work
from tests.support.providers import Scripted

MakeApp = Callable[..., Flask]
JSON = {"content_type": "application/json"}


def test_the_provider_contract_is_ours_too(app: Flask, client: FlaskClient) -> None:
    provider = Scripted()
    install(app, provider, key="otp")
    body = (
        '{"msg": "Hello World", "destination": "+919999911111",'
        ' "config": {"config_key1": "value1", "config_key1": "value2"}}'
    )
    sent = client.post("/communication/sms/send/", data=body, **JSON).json
    assert sent is not None
    assert (sent["success"], sent["msg"]) == (True, "Successfully queued")
    assert sent["data"]["extra_data"] == {}
    uuid = sent["data"]["msg_uuid"]
    work(app)
    report = client.post(
        "/communication/sms/delivery_report/", json={"msg_uuids": [uuid, "unknown"]}
    )
    assert report.json == {"success": True, "data": [{"msg_uuid": uuid, "status": "sent"}]}
    with app.app_context():
        provider.reports[f"ref-{uuid}"] = "undelivered"
        SMS.sync_delivery_report()
    retried = client.post("/communication/sms/retry/", json={"msg_uuid": uuid})
    assert retried.json == {"success": True, "msg": "Successfully queued"}
    work(app)
    assert provider.retried == [f"ref-{uuid}"]


def test_an_idempotency_key_is_one_message(app: Flask, client: FlaskClient) -> None:
    install(app, Scripted())
    body, headers = {"msg": "Hello", "destination": "+919999911111"}, {"Idempotency-Key": "k"}
    answers = [
        client.post("/communication/sms/send", json=body, headers=headers).json for _ in range(2)
    ]
    assert answers[0] == answers[1]
    other = client.post("/communication/sms/send", json={**body, "msg": "x"}, headers=headers)
    assert other.status_code == 409


def test_an_sms_has_its_time_and_all_the_rest(app: Flask, client: FlaskClient) -> None:
    install(app, Scripted())
    body = {
        "msg": "Hello",
        "destination": "+919999911111",
        "priority": "high",
        "metadata": {"order": 17},
    }
    times = {"send_at": "2099-01-01T09:00:00+01:00", "expires_at": "2099-01-02T00:00:00Z"}
    answer = client.post("/communication/sms/send", json={**body, **times})
    assert answer.status_code == 200, answer.text
    with app.app_context():
        found = SMS.get(answer.json["data"]["msg_uuid"])  # type: ignore[index]
    assert found.due_at == datetime(2099, 1, 1, 8, tzinfo=UTC)
    assert found.expires_at == datetime(2099, 1, 2, tzinfo=UTC)
    assert (found.priority, found.meta) == (PRIORITIES["high"], {"order": 17})
    for name, bad in (("send_at", "2099-01-01T09:00:00"), ("priority", "urgent"), ("metadata", [])):
        answer = client.post("/communication/sms/send", json={**body, name: bad})
        assert answer.status_code == 422
        assert list(answer.json["errors"]) == [name]  # type: ignore[index]


def test_a_form_is_told_to_be_json(client: FlaskClient) -> None:
    answer = client.post(
        "/communication/sms/send", data={"msg": "x", "destination": "+919999911111"}
    )
    assert answer.status_code == 415


def test_a_hub_one_deployment_is_anothers_provider(
    make_app: MakeApp, upgraded_sqlite_url: str, tmp_path: Any, postgresql_url: str
) -> None:
    from tests.conftest import upgrade
    from tests.support.seed_provider import served

    upgrade(postgresql_url)
    hub = make_app(postgresql_url, authorize=None)
    provider = Scripted()
    install(hub, provider)
    allowed = make_app(postgresql_url)
    install(allowed, provider)
    assert tokens.create(state_of(hub), "edge", ["message.*"]).startswith("fc_")
    with served(allowed) as address:
        edge = make_app(
            upgraded_sqlite_url, COMMUNICATION_PROVIDERS={"hub": f"{address}/communication"}
        )
        from flask_communication.configs import store

        store.create(
            state_of(edge),
            {"type": "sms", "provider": "hub", "provider_pkg_name": "hub", "config": {}},
        )
        with edge.app_context():
            uuid = SMS.send_msg("+919999911111", "through the hub")
            work(edge)
            assert SMS.get(uuid).status == "sent"
            work(allowed)
            with allowed.app_context():
                theirs = SMS.messages().items[0]
                assert theirs.idempotency_key == uuid
                provider.reports[f"ref-{theirs.uuid}"] = "delivered"
                SMS.sync_delivery_report()
            assert SMS.sync_delivery_report() == (1, 1, 0)
            assert SMS.get(uuid).status == "delivered"
