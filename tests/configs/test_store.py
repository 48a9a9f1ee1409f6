"""Configurations are validated in one way, and no provider is asked inside a transaction."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from flask import Flask

from flask_communication import SMS
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.errors import Conflict, InvalidConfig
from flask_communication.providers.base import Capabilities, Provider
from tests.support.apps import TO, MakeApp, install
from tests.support.loopback import server
from tests.support.providers import Scripted

ACME = {"type": "sms", "provider": "acme", "provider_pkg_name": "acme", "config": {"token": "s3"}}


class Hanging:
    """A server that accepts connections and answers none of them until it is released."""

    def __init__(self) -> None:
        self.accepted = threading.Event()
        self.released = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        self.accepted.set()
        self.released.wait(20)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    behave = Hanging()
    yield behave
    behave.released.set()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def rest(path: str, body: dict[str, Any] | None = None) -> Callable[[Flask], Any]:
    def call(app: Flask) -> Any:
        client = app.test_client()
        if body is None:
            return client.get(f"/communication/{path}")
        return client.post(f"/communication/{path}", json=body)

    return call


def command(*words: str) -> Callable[[Flask], Any]:
    return lambda app: app.test_cli_runner().invoke(args=["communication", *words])


ASKS = {
    "python create": lambda app: store.create(state_of(app), ACME),
    "python change": lambda app: store.change(state_of(app), 2, {"config": {"token": "new"}}),
    "python listing": lambda app: store.listing(state_of(app)),
    "rest create": rest("config/create", ACME),
    "rest update": rest("config/update", {"id": 2, "weight": 7}),
    "rest list": rest("config/list/"),
    "cli add": command(
        *("config", "add", "--type", "sms", "--provider-pkg-name", "acme", "--set", "token=s3")
    ),
    "cli update": command("config", "update", "2", "--set", "token=new"),
    "cli list": command("config", "list"),
    "cli show": command("config", "show", "2"),
    "cli test": command("config", "test", "2"),
    "cli doctor": command("doctor"),
}
ASKS_NOTHING = {
    "python delete": lambda app: store.delete(state_of(app), 2),
    "python reseal": lambda app: store.reseal(state_of(app)),
    "python name_of": lambda app: store.name_of(state_of(app), 2),
    "python unknown_fallbacks": lambda app: store.unknown_fallbacks(state_of(app)),
    "rest delete": rest("config/delete/", {"id": 2}),
    "cli delete": command("config", "delete", "2", "--yes"),
    "cli rotate-keys": command("rotate-keys"),
    "cli explain": command("explain", "sms", TO),
}


def with_two_configurations(make_app: MakeApp, url: str, address: str) -> Flask:
    """Store a default configuration, and one of a provider that this application never asked."""
    keys = [Fernet.generate_key().decode()]

    def make(acme: str) -> Flask:
        app = make_app(
            url,
            COMMUNICATION_ENCRYPTION_KEYS=keys,
            COMMUNICATION_PROVIDERS={"acme": {"url": acme}},
        )
        state_of(app).registry.register(Scripted())
        return app

    first = make(closed_port())
    install(first, Scripted())
    store.create(state_of(first), ACME)
    return make(address)


@pytest.mark.parametrize("name", [*ASKS, *ASKS_NOTHING])
def test_messages_are_accepted_while_a_provider_is_asked_and_does_not_answer(
    make_app: MakeApp, upgraded_sqlite_url: str, hanging: Hanging, name: str
) -> None:
    operation = (ASKS | ASKS_NOTHING)[name]
    with server(hanging) as address:
        app = with_two_configurations(make_app, upgraded_sqlite_url, address)
        thread = threading.Thread(target=operation, args=(app,))
        thread.start()
        if name in ASKS:
            assert hanging.accepted.wait(10)
            assert thread.is_alive()
        with app.app_context():
            begun = time.monotonic()
            SMS.send_msg(TO, "Hello")
            assert time.monotonic() - begun < 1
        if name in ASKS:
            assert thread.is_alive()
        hanging.released.set()
        thread.join(20)
        assert not thread.is_alive()


class Slow(Provider):
    """A provider that changes a configuration while it is asked what it can do."""

    name = "slow"
    meanwhile: Callable[[], Any] | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(known=False)

    def learn(self) -> Capabilities:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return self.capabilities


def test_two_changes_at_once_of_different_fields_are_both_kept(app: Flask) -> None:
    provider, state = Slow(), state_of(app)
    config_id = install(app, provider, config={"token": "old"})
    provider.meanwhile = lambda: store.change(state, config_id, {"weight": 7})
    store.change(state, config_id, {"rate_per_second": 2})
    (row,) = store.listing(state)
    assert (row["weight"], row["rate_per_second"], row["version"]) == (7, 2.0, 3)


def test_a_change_of_the_provider_meanwhile_is_a_conflict(app: Flask) -> None:
    provider, state = Slow(), state_of(app)
    state.registry.register(Scripted())
    config_id = install(app, provider)
    provider.meanwhile = lambda: store.change(state, config_id, {"provider_pkg_name": "scripted"})
    with pytest.raises(Conflict, match=f"configuration {config_id} was changed by somebody else"):
        store.change(state, config_id, {"config": {"token": "new"}})
    assert store.listing(state)[0]["config"] == {}


def test_a_provider_is_asked_once_for_a_list_of_its_configurations(app: Flask) -> None:
    provider, asked = Slow(), []
    for key in ("one", "two", "three"):
        install(app, provider, key=key)
    provider.meanwhile = lambda: asked.append("asked")
    store.listing(state_of(app))
    assert asked == ["asked"]


WRONG = [
    ({"type": "pigeon"}, {"type": ["must be one of sms, email, telephony"]}),
    ({"type": None}, {"type": ["must be one of sms, email, telephony"]}),
    ({"provider": "a\nb"}, {"provider": ["must be a line of at most 100 characters"]}),
    ({"provider": 1}, {"provider": ["must be a line of at most 100 characters"]}),
    ({"key": ""}, {"key": ["must be a line of 1 to 100 characters"]}),
    ({"key": "k" * 101}, {"key": ["must be a line of 1 to 100 characters"]}),
    ({"is_default": "yes"}, {"is_default": ["must be true or false"]}),
    ({"enabled": None}, {"enabled": ["must be true or false"]}),
    ({"fallback": "spare"}, {"fallback": ["must be a list of keys of configurations"]}),
    ({"fallback": ["a", "", 3]}, {"fallback": ["must be a list of keys of configurations"]}),
    ({"weight": 1001}, {"weight": ["must be a whole number from 0 to 1000"]}),
    ({"weight": True}, {"weight": ["must be a whole number from 0 to 1000"]}),
    ({"weight": 1.5}, {"weight": ["must be a whole number from 0 to 1000"]}),
    (
        {"rate_per_second": 0},
        {"rate_per_second": ["must be a number from 1/86400 (one a day) to a million, or null"]},
    ),
    (
        {"rate_per_second": "fast"},
        {"rate_per_second": ["must be a number from 1/86400 (one a day) to a million, or null"]},
    ),
    ({"config": []}, {"config": ["must be an object"]}),
    (
        {"config": {"a": {"b": 1}, "c": "https://me:pw@host/"}},
        {
            "config.a": ["must be a line of text, a number, true, false or null"],
            "config.c": ["has a password in an address; store it in a setting of its own"],
        },
    ),
    (
        {"config": {"a": "x" * 20_001}},
        {"config": ["must be at most 20000 characters of valid Unicode, without NUL"]},
    ),
    ({"config": {"a": "*****"}}, {"config.a": ["is a mask; enter the secret itself"]}),
    ({"wieght": 3}, {"wieght": ["is not a field of a configuration"]}),  # codespell:ignore wieght
    (
        {"weight": -1, "type": "fax"},
        {
            "type": ["must be one of sms, email, telephony"],
            "weight": ["must be a whole number from 0 to 1000"],
        },
    ),
]


@pytest.mark.parametrize(("wrong", "errors"), WRONG, ids=[str(wrong)[:40] for wrong, _ in WRONG])
def test_a_wrong_field_has_the_same_reasons_in_python_and_rest(
    make_app: MakeApp, upgraded_sqlite_url: str, wrong: dict[str, Any], errors: dict[str, Any]
) -> None:
    app = make_app(upgraded_sqlite_url)
    state, client = state_of(app), app.test_client()
    config_id = install(app, Scripted())
    new = {"type": "sms", "provider": "", "provider_pkg_name": "scripted", "config": {}}
    with pytest.raises(InvalidConfig) as created:
        store.create(state, {**new, **wrong})
    with pytest.raises(InvalidConfig) as changed:
        store.change(state, config_id, wrong)
    assert created.value.errors == changed.value.errors == errors
    for path, body in (("create", {**new, **wrong}), ("update", {"id": config_id, **wrong})):
        answer = client.post(f"/communication/config/{path}", json=body)
        assert (answer.status_code, answer.get_json()["errors"]) == (422, errors)
    assert len(store.listing(state)) == 1


@pytest.mark.parametrize("config_id", ["one", None, True, [1], "1 OR 1=1", -1, "9" * 10])
def test_an_id_that_is_none_is_refused_by_name(app: Flask, config_id: Any) -> None:
    state = state_of(app)
    for act in (lambda: store.change(state, config_id, {}), lambda: store.delete(state, config_id)):
        with pytest.raises(InvalidConfig) as wrong:
            act()
        assert wrong.value.errors == {"id": ["must be the number of a configuration"]}


def test_the_command_line_gives_the_same_reasons(make_app: MakeApp, upgraded_url: str) -> None:
    words = ("config", "add", "--type", "fax", "--provider-pkg-name", "simulator")
    ended = command(*words, "--weight", "2000")(make_app(upgraded_url))
    assert ended.exit_code == 1
    assert "type: must be one of sms, email, telephony" in ended.output
    assert "weight: must be a whole number from 0 to 1000" in ended.output


def test_what_is_entered_is_what_is_listed(app: Flask) -> None:
    state = state_of(app)
    entered: dict[str, Any] = {
        "type": "email",
        "provider": None,
        "provider_pkg_name": "simulator",
        "config": {},
        "key": "main",
        "is_default": False,
        "enabled": True,
        "fallback": ["spare"],
        "weight": 30,
        "rate_per_second": 0.5,
    }
    config_id = store.create(state, entered)
    (row,) = store.listing(state)
    assert row == {**entered, "provider": "", "id": config_id, "version": 1}
    store.change(state, config_id, {"key": None, "rate_per_second": None, "fallback": []})
    (row,) = store.listing(state)
    assert (row["key"], row["rate_per_second"], row["fallback"]) == (None, None, [])
    assert (row["weight"], row["is_default"]) == (30, True)
