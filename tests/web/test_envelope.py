"""Bad requests, unknown paths and errors are answered in one envelope."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_communication import Communication

MakeApp = Callable[..., Flask]
JSON = {"content_type": "application/json"}
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
