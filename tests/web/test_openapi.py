"""The description of the REST interface is valid, complete and true."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import validate

from flask_communication.configs.state import state_of
from flask_communication.delivery.actions import RESOLUTIONS
from flask_communication.delivery.channel import Channel
from flask_communication.delivery.policy.suppression import REASONS
from flask_communication.storage.models import CHANNELS, PRIORITIES
from flask_communication.storage.models.status import STATUSES
from tests.support.apps import install
from tests.support.endpoints import PUBLIC, ours
from tests.support.providers import Scripted

HEALTH = "communication.health"
MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp, upgraded_sqlite_url: str) -> Flask:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_URL_PREFIX="/x/y")
    install(app, Scripted())
    return app


def described_by(app: Flask) -> dict[str, Any]:
    found = app.test_client().get("/x/y/openapi.json").json
    assert isinstance(found, dict)
    return found


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    return described_by(app)


def test_it_is_valid_openapi_3_1_with_the_address_it_has_here(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": "/x/y"}]


def described(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(path, method) for path, item in document["paths"].items() for method in item}


def test_every_rule_is_described_and_nothing_else(app: Flask, document: dict[str, Any]) -> None:
    found = set()
    for rule in ours(app):
        if rule.endpoint in PUBLIC - {HEALTH}:
            continue
        path = rule.rule.removeprefix("/x/y").rstrip("/").replace("<", "{").replace(">", "}")
        found |= {(path, method.lower()) for method in rule.methods or ()} - {(path, "head")}
    assert found == described(document)


def test_what_has_only_certain_values_is_an_enum_of_ours(
    app: Flask, document: dict[str, Any]
) -> None:
    schemas, paths = document["components"]["schemas"], document["paths"]
    for name, field, values in (
        ("ConfigCreate", "type", CHANNELS),
        ("Config", "type", CHANNELS),
        ("Message", "channel", CHANNELS),
        ("Message", "status", STATUSES),
        ("MessageStatus", "status", STATUSES),
        ("SendSMS", "priority", (*PRIORITIES, None)),
        ("Suppress", "reason", REASONS),
        ("Resolve", "decision", RESOLUTIONS),
    ):
        assert set(schemas[name]["properties"][field]["enum"]) == set(values), (name, field)
    query = {one["name"]: one["schema"] for one in paths["/messages"]["get"]["parameters"]}
    assert set(query["status"]["enum"]) == STATUSES
    assert tuple(query["channel"]["enum"]) == CHANNELS


def test_a_channel_of_the_host_is_named_too(app: Flask) -> None:
    class Pager(Channel):
        name = "pager"

    state_of(app).channels["pager"] = Pager()
    kinds = described_by(app)["components"]["schemas"]["ConfigCreate"]["properties"]["type"]["enum"]
    assert kinds == [*CHANNELS, "pager"]


def test_the_form_of_an_email_is_described_as_it_is_read(
    app: Flask, document: dict[str, Any]
) -> None:
    content = document["paths"]["/email/send"]["post"]["requestBody"]["content"]
    name = content["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]
    form = document["components"]["schemas"][name]
    examples: dict[str, Any] = {
        "to": ["ann@example.com", "bob@example.com"],
        "cc": ["eve@example.com"],
        "bcc": ["kim@example.com"],
        "reply_to": ["help@example.com"],
        "headers": '{"X-Order": "17"}',
        "metadata": '{"order": 17}',
        "config": "{}",
        "priority": "high",
        "send_at": "2099-01-01T09:00:00Z",
        "expires_at": "2099-01-02T09:00:00Z",
        "sender": "shop@example.com",
        "in_reply_to": "<a@example.com>",
        "unsubscribe": "https://shop.example/stop",
        "html": "<p>Hello</p>",
        "key": "",
    }
    given = {name: examples.get(name, "Hello") for name in form["properties"]}
    install(app, Scripted(), type="email")
    client = app.test_client()
    answer = client.post("/x/y/email/send", data=given, content_type="multipart/form-data")
    assert answer.status_code == 200, answer.text
    assert form["additionalProperties"]["format"] == "binary"
    files = {**given, "any name": (BytesIO(b"x"), "bill.pdf")}
    answer = client.post("/x/y/email/send", data=files, content_type="multipart/form-data")
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/config/create", {"type": "sms", "config": {}}),
        ("get", "/config/list", None),
        ("post", "/sms/send", {"msg": "Hello", "destination": "+919999911111"}),
        ("get", "/messages", None),
        ("get", "/health", None),
    ],
)
def test_answers_have_the_shape_that_is_described(
    app: Flask, document: dict[str, Any], method: str, path: str, body: Any
) -> None:
    from jsonschema import Draft202012Validator

    answer = app.test_client().open(f"/x/y{path}", method=method.upper(), json=body)
    assert answer.status_code == 200
    operation = document["paths"][path][method]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": document["components"]}
    Draft202012Validator(whole).validate(answer.json)
