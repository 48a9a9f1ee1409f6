"""``config/…``: the examples of the interface it is compatible with, and secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_communication.configs.state import state_of
from tests.support.apps import work

MakeApp = Callable[..., Flask]
# As the seed has it: one key twice.
CREATE = """{
  "provider": "",
  "provider_pkg_name": "",
  "type": "sms",
  "config": {
    "config_key1": "value1",
    "config_key1": "value2"
  }
}"""
JSON = {"content_type": "application/json"}
CANARY = "CANARY_9f3b"


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_seeds_four_calls_of_configurations(client: FlaskClient, slash: str) -> None:
    created = client.post(f"/communication/config/create{slash}", data=CREATE, **JSON)
    assert created.status_code == 200
    assert created.json == {"success": True, "msg": "Successfully created", "data": {"id": 1}}
    update = CREATE.replace("{", '{"id": "1",', 1)
    updated = client.post(f"/communication/config/update{slash}", data=update, **JSON)
    assert updated.json == {"success": True, "msg": "Successfully created", "data": {"id": 1}}
    listed = client.get(f"/communication/config/list{slash}?type=sms")
    assert listed.json is not None
    assert listed.json["success"] is True
    (row,) = listed.json["data"]
    assert {
        name: row[name] for name in ("id", "provider", "provider_pkg_name", "type", "config")
    } == {
        "id": 1,
        "provider": "",
        "provider_pkg_name": "",
        "type": "sms",
        "config": {"config_key1": "********"},
    }
    deleted = client.get(f"/communication/config/delete{slash}?id=1")
    assert deleted.json == {"success": True, "msg": "Successfully deleted"}
    again = client.get(f"/communication/config/delete{slash}?id=1")
    assert (again.status_code, again.json["success"]) == (404, False)  # type: ignore[index]


def test_the_list_is_filtered_by_type_and_provider(client: FlaskClient) -> None:
    for provider in ("msg91", "twilio"):
        names = {"provider": provider, "provider_pkg_name": provider}
        body: dict[str, Any] = {**names, "type": "sms", "config": {}}
        assert client.post("/communication/config/create", json=body).status_code == 200
    found = client.get("/communication/config/list/?type=sms&provider=msg91").json
    assert [row["provider"] for row in found["data"]] == ["msg91"]  # type: ignore[index]
    assert client.post("/communication/config/list/?type=email").json == {
        "success": True,
        "data": [],
    }


def test_one_type_has_one_default_and_one_of_each_key(app: Flask, client: FlaskClient) -> None:
    def create(**more: Any) -> Any:
        body = {
            "type": "sms",
            "provider": "s",
            "provider_pkg_name": "simulator",
            "config": {},
            **more,
        }
        return client.post("/communication/config/create", json=body)

    create(key="a")
    create(key="b")
    create(key="c", is_default=True)
    assert create(key="a").status_code == 422
    rows = client.get("/communication/config/list").json["data"]  # type: ignore[index]
    assert [(row["key"], row["is_default"]) for row in rows] == [
        ("a", False),
        ("b", False),
        ("c", True),
    ]
    client.get("/communication/config/delete?id=1")
    assert create(key="a").status_code == 200


def test_what_is_masked_comes_back_masked_and_stays(app: Flask, client: FlaskClient) -> None:
    from flask_communication.configs import schema

    body = {
        "provider": "x",
        "provider_pkg_name": "x",
        "type": "sms",
        "config": {"a": "1", "b": "2"},
    }
    client.post("/communication/config/create", json=body)
    (row,) = client.get("/communication/config/list").json["data"]  # type: ignore[index]
    sent_back = {**body, "id": 1, "config": {**row["config"], "b": "3", "c": "4"}}
    assert client.post("/communication/config/update", json=sent_back).status_code == 200
    kept = client.post("/communication/config/update", json={"id": 1, "config": {"c": None}})
    assert kept.status_code == 200
    assert opened(app) == {"a": "1", "b": "3"}
    moved = client.post(
        "/communication/config/update", json={**sent_back, "provider_pkg_name": "evil"}
    )
    assert moved.status_code == 422
    assert "enter the secret again" in json.dumps(moved.json)
    fresh = {"id": 1, "provider_pkg_name": "other", "config": {"a": "5", "b": "6"}}
    assert client.post("/communication/config/update", json=fresh).status_code == 200
    assert opened(app) == {"a": "5", "b": "6"}
    stale = client.post("/communication/config/update", json={"id": 1, "version": 1})
    assert stale.status_code == 409
    assert schema.MASK == "********"


def opened(app: Flask) -> dict[str, Any]:
    from sqlalchemy import text

    from flask_communication.configs import store

    state = state_of(app)
    with state.database.read() as connection:
        row = connection.execute(text("SELECT id, sealed FROM communication_config")).one()
    return store.values(state, row)


def test_a_secret_without_a_key_is_refused(make_app: MakeApp, upgraded_sqlite_url: str) -> None:
    client = make_app(upgraded_sqlite_url, COMMUNICATION_ENCRYPTION_KEYS=[]).test_client()
    answer = client.post("/communication/config/create", data=CREATE, **JSON)
    assert answer.status_code == 422
    assert "COMMUNICATION_ENCRYPTION_KEYS" in answer.get_data(as_text=True)


def test_a_secret_appears_nowhere(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {
        "provider": "x",
        "provider_pkg_name": "x",
        "type": "sms",
        "config": {"authkey": CANARY},
        "key": "x",
    }
    seen = [client.post("/communication/config/create", json=body)]
    seen.append(client.post("/communication/config/create", json=body))
    seen.append(client.get("/communication/config/list"))
    seen.append(
        client.post("/communication/config/update", json={"id": 1, "config": {"authkey": CANARY}})
    )
    seen.append(client.post("/communication/config/update", json={"id": 1, "type": CANARY}))
    seen.append(
        client.post("/communication/sms/send", json={"msg": "x", "destination": "+919999911111"})
    )
    work(app)
    seen.append(client.get("/communication/messages"))
    seen.append(client.get("/communication/health"))
    assert CANARY not in "".join(answer.get_data(as_text=True) for answer in seen).replace(
        f"'{CANARY}'", ""
    )
    assert CANARY not in caplog.text
    with state_of(app).database.read() as connection:
        assert CANARY not in str(
            connection.exec_driver_sql("SELECT * FROM communication_config").all()
        )
