"""Authorisation: scopes of tokens, the host's ``authorize``, and protection against CSRF."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from flask_communication.configs import tokens
from flask_communication.configs.state import state_of
from tests.support.apps import allow, install
from tests.support.endpoints import PUBLIC, ours
from tests.support.providers import Scripted

MakeApp = Callable[..., Flask]
SEND = {"msg": "Hello", "destination": "+919999911111"}
ROOT = "/communication"


@pytest.fixture
def app(make_app: MakeApp, upgraded_sqlite_url: str) -> Flask:
    app = make_app(upgraded_sqlite_url)
    install(app, Scripted())
    return app


def browser(app: Flask) -> FlaskClient:
    """Return a client with a cookie of the host's, as a browser that is logged in."""
    client = app.test_client()
    client.set_cookie("session", "somebody")
    return client


def bearer(app: Flask, *scopes: str, **kwargs: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.create(state_of(app), 'test', scopes, **kwargs)}"}


def test_nobody_may_until_the_host_says_who(make_app: MakeApp, upgraded_sqlite_url: str) -> None:
    app = make_app(upgraded_sqlite_url, authorize=None)
    client = app.test_client()
    for rule in ours(app):
        if rule.endpoint in PUBLIC:
            continue
        for method in rule.methods or ():
            answer = client.open(rule.rule.replace("<uuid>", "x"), method=method)
            assert answer.status_code in (401, 403, 405), (rule, method)
            if answer.status_code == 405:
                assert method == "HEAD"


def test_an_authorize_that_fails_denies(make_app: MakeApp, upgraded_sqlite_url: str) -> None:
    def fail(_action: str, _resource: Any = None) -> bool:
        raise KeyError("user")

    client = make_app(upgraded_sqlite_url, authorize=fail).test_client()
    assert client.get(f"{ROOT}/messages").status_code == 403


def test_authorize_is_asked_for_the_action(make_app: MakeApp, upgraded_sqlite_url: str) -> None:
    asked: list[str] = []

    def authorize(action: str, _resource: Any = None) -> bool:
        asked.append(action)
        return action == "message.read"

    client = make_app(upgraded_sqlite_url, authorize=authorize).test_client()
    assert client.get(f"{ROOT}/messages").status_code == 200
    assert client.get(f"{ROOT}/config/list").status_code == 403
    assert asked == ["message.read", "config.read"]


def test_a_tokens_scopes_decide_and_cookies_are_ignored(app: Flask) -> None:
    client = browser(app)
    headers = bearer(app, "message.*")
    assert client.post(f"{ROOT}/sms/send", json=SEND, headers=headers).status_code == 200
    assert client.get(f"{ROOT}/messages", headers=headers).status_code == 200
    assert client.get(f"{ROOT}/config/list", headers=headers).status_code == 403
    assert client.get(f"{ROOT}/config/list", headers=bearer(app, "*")).status_code == 200


@pytest.mark.parametrize(
    "presented",
    ["", "garbage", "fc_", "fc_x_y", "fc_" + "a" * 10_000, "x_0123456789abcdef_y", "\u00e9"],
)
def test_what_is_no_token_lets_nobody_in(app: Flask, presented: str) -> None:
    headers = {"Authorization": f"Bearer {presented}"}
    answer = app.test_client().get(f"{ROOT}/messages", headers=headers)
    assert answer.status_code == 401


def test_an_expired_or_revoked_token_lets_nobody_in(app: Flask) -> None:
    expired = bearer(app, "*", expires_in=timedelta(microseconds=1))
    revoked = bearer(app, "*")
    tokens.revoke(state_of(app), revoked["Authorization"].split("_")[1])
    client = app.test_client()
    for headers in (expired, revoked):
        assert client.get(f"{ROOT}/messages", headers=headers).status_code == 401


def test_only_the_hash_of_a_token_is_kept(app: Flask) -> None:
    token = bearer(app, "*")["Authorization"].split()[1]
    with state_of(app).database.read() as connection:
        kept = str(connection.exec_driver_sql("SELECT * FROM communication_token").all())
    assert token.split("_", 2)[2] not in kept


def test_a_script_without_cookies_needs_no_csrf_token(app: Flask) -> None:
    assert app.test_client().post(f"{ROOT}/sms/send", json=SEND).status_code == 200


def test_a_browser_sends_back_the_token_it_was_given(app: Flask) -> None:
    client = browser(app)
    assert client.post(f"{ROOT}/sms/send", json=SEND).status_code == 403
    assert client.get(f"{ROOT}/messages").status_code == 200
    cookie = client.get_cookie("communication_csrf", path=f"{ROOT}/")
    assert cookie is not None
    good = {"X-CSRF-Token": cookie.value, "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"{ROOT}/sms/send", json=SEND, headers=good).status_code == 200
    for bad in (
        {},
        {"X-CSRF-Token": "wrong"},
        {**good, "X-CSRF-Token": cookie.value + "x"},
        {**good, "Sec-Fetch-Site": "cross-site"},
        {**good, "Sec-Fetch-Site": "same-site"},
        {"X-CSRF-Token": cookie.value, "Origin": "https://evil.example"},
    ):
        assert client.post(f"{ROOT}/sms/send", json=SEND, headers=bad).status_code == 403, bad


def test_a_token_that_somebody_made_up_in_both_places_is_refused(app: Flask) -> None:
    client = browser(app)
    client.set_cookie("communication_csrf", "made-up")
    answer = client.post(f"{ROOT}/sms/send", json=SEND, headers={"X-CSRF-Token": "made-up"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "mark", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_a_page_elsewhere_can_do_nothing_even_without_cookies(
    app: Flask, mark: dict[str, str]
) -> None:
    assert app.test_client().post(f"{ROOT}/sms/send", json=SEND, headers=mark).status_code == 403


def test_the_hosts_session_is_left_alone(app: Flask) -> None:
    client = app.test_client()
    with client:
        client.get(f"{ROOT}/messages", headers={"Cookie": "a=b"})
        assert dict(session) == {}


def test_a_get_delete_with_a_cookie_deletes_nothing(app: Flask) -> None:
    client = browser(app)
    url = f"{ROOT}/config/delete/?id=1"
    page = client.get(url, headers={"Accept": "text/html"})
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert client.get(url, headers={"Accept": "application/json"}).status_code == 405
    assert client.get(url, headers={"Accept": "image/*"}).status_code == 405
    assert rows(app) == 1
    token = page.get_data(as_text=True).split('name="csrf_token" value="')[1].split('"')[0]
    assert client.post(f"{ROOT}/config/delete", data={"id": "1"}).status_code == 403
    done = client.post(
        f"{ROOT}/config/delete",
        data={"id": "1", "csrf_token": token},
        headers={"Accept": "text/html", "Sec-Fetch-Site": "same-origin"},
    )
    assert done.status_code == 303
    assert rows(app) == 0


def test_a_get_delete_with_a_token_deletes_unless_nobody_asked(app: Flask) -> None:
    client, headers = app.test_client(), bearer(app, "config.delete")
    url = f"{ROOT}/config/delete/?id=1"
    assert client.get(url, headers={**headers, "Sec-Purpose": "prefetch"}).status_code == 403
    assert client.get(url, headers={**headers, "Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.head(url, headers=headers).status_code == 405
    assert client.options(url, headers=headers).status_code == 405
    assert client.get(url, headers=bearer(app, "config.read")).status_code == 403
    assert rows(app) == 1
    answer = client.get(url, headers=headers)
    assert answer.json == {"success": True, "msg": "Successfully deleted"}
    assert answer.headers["Cache-Control"] == "no-store"
    assert rows(app) == 0


def test_get_delete_can_be_switched_off(make_app: MakeApp, upgraded_sqlite_url: str) -> None:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_ALLOW_GET_DELETE=False)
    install(app, Scripted())
    client = app.test_client()
    assert client.get(f"{ROOT}/config/delete/?id=1").status_code == 405
    assert client.delete(f"{ROOT}/config/delete/?id=1").status_code == 200


def rows(app: Flask) -> int:
    return len(app.test_client().get(f"{ROOT}/config/list").json["data"])  # type: ignore[index]


@pytest.mark.parametrize("first", [True, False])
def test_a_host_that_checks_csrf_itself_does_not_check_us(
    upgraded_sqlite_url: str, first: bool
) -> None:
    from flask_wtf import CSRFProtect

    from flask_communication import Communication

    app = Flask("host")
    app.config.update(
        SECRET_KEY="x",
        COMMUNICATION_DATABASE_URL=upgraded_sqlite_url,
        COMMUNICATION_EMBEDDED_WORKER=False,
    )
    if first:
        CSRFProtect(app)
    Communication(app, authorize=allow)
    if not first:
        CSRFProtect(app)
    install(app, Scripted())
    app.add_url_rule("/theirs", "theirs", lambda: "x", methods=["POST"])
    client = app.test_client()
    assert client.post(f"{ROOT}/sms/send", json=SEND).status_code == 200
    assert client.post("/theirs").status_code == 400
