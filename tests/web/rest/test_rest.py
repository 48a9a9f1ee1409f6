"""The REST interface: the seed's examples to the letter, and bad input."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_communication import SMS, Communication
from flask_communication.configs import tokens
from flask_communication.configs.state import state_of
from flask_communication.storage.models import PRIORITIES
from tests.support.rigs import Scripted, install, work

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


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str) -> Flask:
    return make_app(upgraded_url)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


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
        body = {"provider": provider, "provider_pkg_name": provider, "type": "sms", "config": {}}
        assert client.post("/communication/config/create", json=body).status_code == 200
    found = client.get("/communication/config/list/?type=sms&provider=msg91").json
    assert [row["provider"] for row in found["data"]] == ["msg91"]  # type: ignore[index]
    assert client.post("/communication/config/list/?type=email").json == {
        "success": True,
        "data": [],
    }


def test_the_provider_contract_is_ours_too(app: Flask, client: FlaskClient) -> None:
    provider = Scripted()
    install(app, provider, key="otp")
    body = (
        '{"msg": "Hello World", "destination": "+919999911111",'
        + CREATE[CREATE.index('"config"') :]
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


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("config/create", "", 400),
        ("config/create", "not json", 400),
        ("config/create", "[]", 400),
        ("config/create", "null", 400),
        ("config/create", "[" * 200_000, 400),
        ("config/create", '{"a":' * 200_000, 400),
        ("config/create", '{"type": "sms", "config": {"a": NaN}}', 400),
        ("config/create", '{"type": "sms", "config": {"a": 1e999}}', 400),
        ("config/create", '{"type": "sms", "config": {"a": 99999999999999999999999}}', 400),
        ("config/create", '{"type": "sms", "config": {"a": "\\u0000"}}', 400),
        ("config/create", '{"type": "sms", "config": {"a": "\\ud800"}}', 400),
        ("config/create", b'{"type": "\xff"}', 400),
        ("config/create", "x" * 1_000_001, 413),
        ("config/create", "{}", 422),
        ("config/create", '{"type": "pigeon"}', 422),
        ("config/create", '{"type": 1}', 422),
        ("config/create", '{"type": "sms", "config": []}', 422),
        ("config/create", '{"type": "sms", "config": {"a": {"b": 1}}}', 422),
        ("config/create", '{"type": "sms", "config": {"a": "********"}}', 422),
        ("config/create", '{"type": "sms", "config": {"a": "https://me:pw@host/"}}', 422),
        ("config/create", '{"type": "sms", "version": 1, "id": 1}', 422),
        ("config/create", '{"type": "sms", "weight": "heavy"}', 422),
        ("config/create", '{"type": "sms", "rate_per_second": 0}', 422),
        ("config/create", '{"type": "sms", "rate_per_second": 1e-300}', 422),
        ("config/create", '{"type": "sms", "rate_per_second": 0.00001}', 422),
        ("config/create", '{"type": "sms", "rate_per_second": 1e300}', 422),
        ("config/create", '{"type": "sms", "key": "a\\nb"}', 422),
        ("config/create", '{"type": "sms", "provider": 1}', 422),
        ("config/update", '{"id": 77, "type": "sms"}', 404),
        ("config/update", '{"id": "1 OR 1=1"}', 422),
        ("config/update", '{"id": [1]}', 422),
        ("config/update", '{"id": true}', 422),
        ("config/update", '{"type": "sms"}', 422),
        ("config/delete", '{"id": 77}', 404),
        ("sms/send", '{"msg": "x"}', 422),
        ("sms/send", '{"msg": "x", "destination": "nobody"}', 422),
        ("sms/send", '{"msg": 1, "destination": "+919999911111"}', 422),
        ("sms/send", '{"msg": "x", "destination": "+919999911111", "status": "sent"}', 422),
        ("sms/send", '{"msg": "x", "destination": "+919999911111", "key": "none"}', 404),
        ("sms/send", '{"msg": "x", "destination": "+919999911111", "key": {"a": 1}}', 422),
        ("sms/retry", '{"msg_uuid": "none"}', 404),
        ("sms/retry", '{"msg_uuid": 5}', 422),
        ("sms/delivery_report", '{"msg_uuids": "none"}', 422),
        ("sms/delivery_report", '{"msg_uuids": [null]}', 422),
        ("messages/none/resolve", '{"decision": "sent"}', 404),
    ],
)
def test_bad_input_is_a_clear_refusal(
    make_app: MakeApp, upgraded_sqlite_url: str, path: str, body: str | bytes, status: int
) -> None:
    answer = (
        make_app(upgraded_sqlite_url)
        .test_client()
        .post(f"/communication/{path}", data=body, **JSON)
    )
    assert (answer.status_code, answer.mimetype) == (status, "application/json")
    assert answer.json is not None
    assert answer.json["success"] is False
    assert answer.json["msg"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("config/delete/", 422),
        ("config/delete/?id=1&id=2", 422),
        ("config/delete/?id=1 OR 1=1", 422),
        ("config/delete/?id=-1", 422),
        ("config/delete/?id=%00", 422),
        ("config/list/?nonsense=1", 422),
        ("messages/?status=asleep", 422),
        ("messages/?limit=0", 422),
        ("messages/?limit=abc", 422),
        ("messages/?since=yesterday", 422),
        ("messages/?since=0001-01-01T00:00:00%2B14:00", 422),
        ("messages/?until=9999-12-31T23:59:59-14:00", 422),
        ("messages/?after=%00", 422),
        ("messages/?channel=fax", 422),
        ("messages/?key=zzz", 422),
        ("suppressions/?channel=fax", 422),
        ("config/list/?type=fax", 422),
        ("messages/none", 404),
        ("messages/%ff", 404),
    ],
)
def test_a_bad_query_is_a_clear_refusal(client: FlaskClient, path: str, status: int) -> None:
    answer = client.get(f"/communication/{path}")
    assert (answer.status_code, answer.mimetype) == (status, "application/json")


def test_a_uuid_no_database_can_hold_is_no_500(client: FlaskClient) -> None:
    for path in ("messages/%00", "messages/%00/cancel"):
        answer = client.open(f"/communication/{path}", method="POST" if "cancel" in path else "GET")
        assert answer.status_code in (404, 422)


def test_a_form_is_told_to_be_json(client: FlaskClient) -> None:
    answer = client.post(
        "/communication/sms/send", data={"msg": "x", "destination": "+919999911111"}
    )
    assert answer.status_code == 415


NOWHERE = [
    ("GET", "sms/send", 405),
    ("PUT", "config/update", 405),
    ("PATCH", "config/delete/", 405),
    ("GET", "messages/some-uuid/release", 405),
    ("OPTIONS", "messages/some-uuid/release/", 405),
    ("DELETE", "health", 405),
    ("POST", "nope", 404),
    ("GET", "", 404),
    ("GET", "messages/some-uuid/bogus", 404),
    ("PUT", "messages/some-uuid/bogus/deeper/", 404),
]


@pytest.mark.parametrize(("method", "path", "status"), NOWHERE)
@pytest.mark.parametrize("prefix", ["/communication", "/x/y"])
def test_what_is_no_call_of_ours_is_answered_in_json(
    make_app: MakeApp, sqlite_url: str, prefix: str, method: str, path: str, status: int
) -> None:
    app = make_app(sqlite_url, COMMUNICATION_URL_PREFIX=prefix)
    app.register_error_handler(404, lambda wrong: ("<html>the host's own page", 404))
    app.register_error_handler(405, lambda wrong: ("<html>the host's own page", 405))
    answer = app.test_client().open(f"{prefix}/{path}", method=method)
    assert (answer.status_code, answer.mimetype) == (status, "application/json")
    assert answer.json is not None
    assert answer.json["success"] is False
    assert ("Allow" in answer.headers) == (status == 405)
    assert app.test_client().get("/nowhere").text == "<html>the host's own page"


def test_a_wrong_method_is_told_the_right_one(client: FlaskClient) -> None:
    answer = client.put("/communication/config/delete")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST", "DELETE"}
    assert "use DELETE or GET or HEAD or POST" in answer.json["msg"]  # type: ignore[index]


def test_the_hosts_own_404_pages_stay_its_own(make_app: MakeApp, sqlite_url: str) -> None:
    app = make_app(sqlite_url)
    app.add_url_rule("/communication/of-the-host/", view_func=lambda: "the host's", endpoint="host")
    client = app.test_client()
    assert client.get("/nowhere").mimetype == "text/html"
    assert client.get("/communication/of-the-host/").text == "the host's"
    assert client.get("/communication/of-the-host").status_code == 308


def test_each_application_answers_below_its_own_prefix(sqlite_url: str) -> None:
    extension = Communication()
    for prefix in ("/a", "/b/c"):
        app = Flask("host")
        app.config.update(
            COMMUNICATION_DATABASE_URL=sqlite_url, COMMUNICATION_EMBEDDED_WORKER=False
        )
        extension.init_app(app, url_prefix=prefix)
        client = app.test_client()
        assert client.get(f"{prefix}/nope").mimetype == "application/json"
        assert client.get(f"{prefix}/sms/send").status_code == 405
        assert client.get("/a/nope" if prefix != "/a" else "/b/c/nope").mimetype == "text/html"


def test_without_a_prefix_the_hosts_paths_are_the_hosts(make_app: MakeApp, sqlite_url: str) -> None:
    client = make_app(sqlite_url, COMMUNICATION_URL_PREFIX="/").test_client()
    assert client.get("/nowhere").mimetype == "text/html"
    assert client.get("/sms/send").mimetype == "application/json"


def test_health_tells_strangers_nothing(make_app: MakeApp, upgraded_url: str, app: Flask) -> None:
    answer = make_app(upgraded_url, authorize=None).test_client().get("/communication/health")
    assert (answer.status_code, answer.json) == (200, {"success": True})
    told = app.test_client().get("/communication/health").json
    assert told is not None
    assert told["data"]["database"] == {"ok": True, "due": 0, "oldest_due_seconds": None}


def test_health_says_what_to_do_about_missing_tables(make_app: MakeApp, database_url: str) -> None:
    answer = make_app(database_url).test_client().get("/communication/health")
    assert answer.status_code == 503
    assert "flask communication upgrade" in answer.get_data(as_text=True)
    sent = (
        make_app(database_url)
        .test_client()
        .post("/communication/sms/send", json={"msg": "x", "destination": "+919999911111"})
    )
    assert sent.status_code == 503
    assert "flask communication upgrade" in sent.get_data(as_text=True)


def test_a_database_that_is_away_is_503_and_says_nothing_of_it(make_app: MakeApp) -> None:
    client = make_app("postgresql+psycopg://nobody@127.0.0.1:1/none").test_client()
    body = {"msg": "x", "destination": "+919999911111"}
    for answer in (
        client.get("/communication/messages"),
        client.post("/communication/sms/send", json=body),
        client.get("/communication/config/list", headers={"Authorization": "Bearer fc_0_x"}),
    ):
        assert (answer.status_code, answer.mimetype) == (503, "application/json")
        assert "127.0.0.1" not in answer.text


CANARY = "CANARY_9f3b"


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


def test_what_is_masked_comes_back_masked_and_stays(app: Flask, client: FlaskClient) -> None:
    from flask_communication.configs import store

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
    assert store.MASK == "********"


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
