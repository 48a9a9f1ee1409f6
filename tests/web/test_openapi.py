"""The description of the REST interface is valid, complete and true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import validate

from flask_communication.web.access import PUBLIC
from tests.support.rigs import Scripted, install

HEALTH = "communication.health"
MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp, upgraded_sqlite_url: str) -> Flask:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_URL_PREFIX="/x/y")
    install(app, Scripted())
    return app


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = app.test_client().get("/x/y/openapi.json").json  # type: ignore[assignment]
    return found


def test_it_is_valid_openapi_3_1_with_the_address_it_has_here(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": "/x/y"}]


def test_every_route_is_described(app: Flask, document: dict[str, Any]) -> None:
    described = {(path, method) for path, calls in document["paths"].items() for method in calls}
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.startswith("communication.") or rule.endpoint in PUBLIC - {HEALTH}:
            continue
        path = rule.rule.removeprefix("/x/y").rstrip("/").replace("<", "{").replace(">", "}")
        methods = {method.lower() for method in rule.methods or ()} - {"head"}
        assert any((path, method) in described for method in methods), rule


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
