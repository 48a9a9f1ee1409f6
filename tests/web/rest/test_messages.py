"""``messages/…``: listed, shown, cancelled and resolved."""

from __future__ import annotations

from flask import Flask
from flask.testing import FlaskClient

from flask_communication import SMS
from tests.support.apps import install, work
from tests.support.providers import Scripted


def test_messages_are_listed_and_told(app: Flask, client: FlaskClient) -> None:
    install(app, Scripted())
    with app.app_context():
        uuids = [SMS.send_msg("+919999911111", f"{n}") for n in range(3)]
    page = client.get("/communication/messages/?limit=2").json
    assert page is not None
    assert [one["uuid"] for one in page["data"]] == uuids[:0:-1]
    rest = client.get(f"/communication/messages?limit=2&after={page['next']}").json
    assert rest is not None
    assert [one["uuid"] for one in rest["data"]] == uuids[:1]
    assert rest["next"] is None
    work(app)
    story = client.get(f"/communication/messages/{uuids[0]}/").json
    assert story is not None
    assert story["data"]["status"] == "sent"
    assert [one["state"] for one in story["data"]["attempts"]] == ["accepted"]


def test_a_message_is_cancelled_and_resolved(app: Flask, client: FlaskClient) -> None:
    install(app, Scripted())
    with app.app_context():
        uuid = SMS.send_msg("+919999911111", "Hello")
    assert client.post(f"/communication/messages/{uuid}/cancel").status_code == 200
    assert client.post(f"/communication/messages/{uuid}/cancel").status_code == 409
    answer = client.post(f"/communication/messages/{uuid}/resolve", json={"decision": "sent"})
    assert answer.status_code == 409


def test_a_uuid_no_database_can_hold_is_no_500(client: FlaskClient) -> None:
    for path in ("messages/%00", "messages/%00/cancel"):
        answer = client.open(f"/communication/{path}", method="POST" if "cancel" in path else "GET")
        assert answer.status_code in (404, 422)
