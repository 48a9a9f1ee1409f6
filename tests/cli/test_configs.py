"""``config …`` and ``rotate-keys``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.fernet import Fernet
from flask import Flask

from flask_communication import SMS
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.errors import Refused
from tests.support.apps import install, work
from tests.support.commands import run
from tests.support.providers import Scripted

MakeApp = Callable[..., Flask]
TO = "+919999911111"


def stored(app: Flask, config_id: int = 1) -> dict[str, Any]:
    return next(one for one in store.listing(state_of(app)) if one["id"] == config_id)


def test_secrets_are_asked_for_and_listed_masked(app: Flask) -> None:
    words = ["config", "add", "--type", "sms", "--provider-pkg-name", "acme", "--secret", "api_key"]
    run(app, *words, "--set", "sender=SHOP", "--key", "acme", input="CANARY\n")
    listed = run(app, "config", "list")
    assert "acme" in listed
    assert "********" in listed
    assert "CANARY" not in listed
    assert "NAME=VALUE" in run(app, *words, "--set", "nonsense", expect=2)


def test_a_configuration_is_changed_shown_and_deleted(app: Flask) -> None:
    add = ["config", "add", "--type", "sms", "--provider-pkg-name", "simulator", "--key"]
    run(app, *add, "main", "--set", "story=delivered", "--set", "latency_ms=5")
    run(app, *add, "spare")
    told = run(
        app,
        *(
            "config",
            "update",
            "1",
            "--disabled",
            "--key",
            "first",
            "--weight",
            "70",
            "--rate",
            "2.5",
        ),
        *("--fallback", "spare", "--set", "story=unknown", "--clear", "latency_ms"),
    )
    assert "configuration 1 is changed" in told
    known = stored(app)
    assert (known["enabled"], known["key"], known["weight"]) == (False, "first", 70)
    assert (known["rate_per_second"], known["fallback"]) == (2.5, ["spare"])
    assert known["config"] == {"story": "unknown"}
    told = run(app, "config", "show", "1")
    for words in ("sms first (1)", "disabled, version 2", "fallback spare", "weight 70, rate 2.5"):
        assert words in told
    assert 'story = "unknown"' in told
    assert "state: disabled" in told
    run(app, "config", "update", "1", "--enabled", "--no-rate", "--no-fallback", "--default")
    known = stored(app)
    assert (known["enabled"], known["rate_per_second"], known["fallback"]) == (True, None, [])
    assert known["is_default"]
    assert not stored(app, 2)["is_default"]
    assert run(app, "config", "delete", "1", input="n\n", expect=1)
    assert "sms first (1) is deleted" in run(app, "config", "delete", "1", "--yes")
    for given in (["show", "1"], ["update", "1"], ["delete", "1", "--yes"], ["update", "otp"]):
        assert run(app, "config", *given, expect=1).startswith("Error: ")


def test_a_changed_secret_is_asked_for(app: Flask) -> None:
    words = ["config", "add", "--type", "sms", "--provider-pkg-name", "acme", "--secret", "api_key"]
    run(app, *words, input="CANARY\n")
    told = run(app, "config", "update", "1", "--secret", "api_key", input="OTHER_CANARY\n")
    assert "CANARY" not in told + run(app, "config", "show", "1")
    assert 'api_key = "********"' in run(app, "config", "show", "1")


def test_the_list_shows_the_way_and_how_each_is(app: Flask) -> None:
    install(
        app,
        Scripted(lambda sms: refuse()),
        key="main",
        fallback=["ghost"],
        weight=70,
        rate_per_second=5,
    )
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        work(app)
    told = run(app, "config", "list")
    for words in ("ghost (unknown)", "70", "5", "stopped until it is changed: wrong password"):
        assert words in told
    assert "state: stopped until" in run(app, "config", "show", "1")


def refuse() -> Any:
    raise Refused("wrong password", http_status=401)


def test_a_fallback_or_a_provider_that_does_not_exist_is_warned_of(app: Flask) -> None:
    told = run(
        app,
        "config",
        "add",
        "--type",
        "sms",
        "--provider-pkg-name",
        "acme",
        "--fallback",
        "ghost",
        "--key",
        "a",
    )
    assert "configuration 1 stored" in told
    assert "Warning: no configuration of this type has the key 'ghost' yet" in told
    assert "Warning: nothing can be sent by it yet: no provider is called 'acme'" in told
    told = run(
        app, "config", "add", "--type", "sms", "--provider-pkg-name", "simulator", "--fallback", "a"
    )
    assert "Warning" not in told
    assert "Warning" in run(app, "config", "update", "2", "--fallback", "ghost")


def test_keys_are_rotated(make_app: MakeApp, upgraded_url: str) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    words = ["config", "add", "--type", "sms", "--provider-pkg-name", "acme", "--secret", "api_key"]
    app = make_app(upgraded_url, COMMUNICATION_ENCRYPTION_KEYS=[old])
    run(app, *words, input="CANARY\n")
    run(app, *words, input="CANARY\n")
    run(app, "config", "delete", "1", "--yes")
    run(app, "config", "add", "--type", "sms", "--provider-pkg-name", "simulator")
    both = make_app(upgraded_url, COMMUNICATION_ENCRYPTION_KEYS=[new, old])
    assert "2 configurations" in run(both, "rotate-keys")
    assert stored(make_app(upgraded_url, COMMUNICATION_ENCRYPTION_KEYS=[new]), 2)["config"] == {
        "api_key": "********"
    }
    told = run(app, "rotate-keys", expect=1)
    assert "0 configurations" in told
    assert "no key in COMMUNICATION_ENCRYPTION_KEYS opens the secrets of config:1" in told
