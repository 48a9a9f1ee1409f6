"""The description of the REST interface is valid, complete and true."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import validate

from flask_communication import SMS
from flask_communication.configs.state import state_of
from flask_communication.delivery.actions import RESOLUTIONS
from flask_communication.delivery.channel import Channel
from flask_communication.delivery.policy.suppression import REASONS
from flask_communication.storage.models import CHANNELS, PRIORITIES
from flask_communication.storage.models.status import ATTEMPTS, STATUSES
from tests.support.apps import install, work
from tests.support.endpoints import PUBLIC, ours
from tests.support.providers import Scripted

HEALTH = "communication.health"
MakeApp = Callable[..., Flask]
TO = "+919999911111"


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
        ("Event", "status", (*STATUSES, None)),
        ("Attempt", "state", ATTEMPTS),
        ("DeliveryReport", "status", STATUSES),
        ("SendSMS", "priority", (*PRIORITIES, None)),
        ("EmailForm", "priority", PRIORITIES),
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
    files = {name for name, one in form["properties"].items() if is_file(one)}
    assert files == {"files", "inline"}
    given = {name: examples.get(name, "Hello") for name in set(form["properties"]) - files}
    install(app, Scripted(), type="email")
    client = app.test_client()
    answer = client.post("/x/y/email/send", data=given, content_type="multipart/form-data")
    assert answer.status_code == 200, answer.text
    assert form["additionalProperties"]["format"] == "binary"
    for name in (*files, "any name"):
        sent = {**given, name: (BytesIO(b"x"), "bill.pdf")}
        answer = client.post("/x/y/email/send", data=sent, content_type="multipart/form-data")
        assert answer.status_code == 200, answer.text
        sent = {**given, name: "a text"}
        answer = client.post("/x/y/email/send", data=sent, content_type="multipart/form-data")
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [name])


def is_file(schema: dict[str, Any]) -> bool:
    return bool(schema.get("items", {}).get("format") == "binary")


def test_a_form_has_no_null(document: dict[str, Any]) -> None:
    for name in ("EmailForm", "ConfigDeleteForm"):
        assert "null" not in json.dumps(document["components"]["schemas"][name])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/config/create", {"type": "sms", "config": {}}),
        ("get", "/config/list", None),
        ("post", "/config/delete", {"id": 1}),
        ("post", "/sms/send", {"msg": "Hello", "destination": TO}),
        ("post", "/sms/delivery_report", {"msg_uuids": ["{uuid}"]}),
        ("post", "/email/sync_inbox", {}),
        ("get", "/messages", None),
        ("get", "/messages/{uuid}", None),
        ("post", "/suppressions", {"destination": TO}),
        ("get", "/suppressions", None),
        ("get", "/health", None),
        ("get", "/openapi.json", None),
    ],
)
def test_answers_have_the_shape_that_is_described(
    app: Flask, document: dict[str, Any], method: str, path: str, body: Any
) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        SMS.suppress("+919999922222", reason="complaint")
        work(app)
    answer = app.test_client().open(f"/x/y{path.format(uuid=uuid)}", method=method, json=body)
    assert answer.status_code == 200, answer.text
    check(document, document["paths"][path][method], 200, answer.json)


def test_a_failure_has_the_shape_that_is_described(
    make_app: MakeApp, tmp_path: Path, document: dict[str, Any]
) -> None:
    client = make_app(f"sqlite:///{tmp_path}/empty.sqlite").test_client()
    for method, path, status in (
        ("get", "/health", 503),
        ("get", "/messages", 503),
        ("post", "/sms/send", 415),
        ("post", "/messages/{uuid}/resolve", 415),
    ):
        answer = client.open(f"/communication{path}", method=method)
        assert answer.status_code == status, path
        check(document, document["paths"][path][method], status, answer.json)


def check(document: dict[str, Any], operation: dict[str, Any], status: int, answer: Any) -> None:
    """Validate an answer against what an operation says of this status."""
    from jsonschema import Draft202012Validator

    schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(answer)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, described in document["paths"].items():
        for method, operation in described.items():
            if method in ("get", "post", "delete"):
                yield f"/x/y{path.format(uuid='none', place=0)}", method.upper(), operation


def in_query(operation: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in operation.get("parameters", ()) if one["in"] == "query"]


def sample(schema: dict[str, Any]) -> str:
    """Return a value of a query parameter."""
    if "enum" in schema:
        return str(schema["enum"][0])
    if schema.get("format") == "date-time":
        return "2026-11-23T12:00:00Z"
    return "1"


def test_every_described_parameter_is_taken_and_no_other_is(
    app: Flask, document: dict[str, Any]
) -> None:
    for path, method, operation in operations(document):
        known = in_query(operation)
        required = {one["name"]: sample(one["schema"]) for one in known if one["required"]}
        for one in known:
            query = {**required, one["name"]: sample(one["schema"])}
            answer = app.test_client().open(path, method=method, query_string=query)
            told = answer.get_data(as_text=True)
            assert "is not a parameter" not in told, (path, one)
            assert "must be" not in told or one["name"] in ("thread", "key", "after"), (path, told)
        if known:
            answer = app.test_client().open(
                path, method=method, query_string={**required, "colour": "red"}
            )
            assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["colour"])


def bodies(document: dict[str, Any], kind: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the operations that take a body of a content type, with its schema."""
    for path, method, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if kind in content:
            name = content[kind]["schema"]["$ref"].rpartition("/")[2]
            yield path, method, document["components"]["schemas"][name]


def test_every_described_field_of_json_is_known_and_no_other_is(
    app: Flask, document: dict[str, Any]
) -> None:
    found = list(bodies(document, "application/json"))
    assert len(found) > 10
    for path, method, schema in found:
        # No field takes this: each is named as wrong, and none as unknown.
        wrong: dict[str, Any] = {name: [{}] for name in schema["properties"]}
        answer = app.test_client().open(path, method=method, json={**wrong, "colour": "red"})
        assert answer.status_code == 422, path
        told: dict[str, Any] = answer.json["errors"]  # type: ignore[index]
        unknown = [name for name, why in told.items() if why == told["colour"]]
        assert unknown == ["colour"], path
        missing = app.test_client().open(path, method=method, json={})
        if missing.status_code == 422:
            assert set(schema.get("required", ())) <= set(missing.get_json()["errors"])


def test_a_content_type_that_is_not_described_is_415(app: Flask, document: dict[str, Any]) -> None:
    kinds = ("application/json", "multipart/form-data", "application/x-www-form-urlencoded")
    for path, method, operation in operations(document):
        described = operation.get("requestBody", {}).get("content", {})
        for kind in (*kinds, "text/plain") if described else ():
            data: Any = {"none": "1"} if "form" in kind else "{}"
            answer = app.test_client().open(path, method=method, data=data, content_type=kind)
            assert (answer.status_code == 415) == (kind not in described), (path, kind)
