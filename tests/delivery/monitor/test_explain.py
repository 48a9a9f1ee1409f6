"""``explain`` says what the worker then does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_communication import SMS, Email
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.delivery.monitor import explain
from flask_communication.errors import ConfigNotFound, InvalidMessage
from flask_communication.providers.base import Refused
from flask_communication.storage.models import Message
from tests.support.apps import TO, MakeApp, install, work
from tests.support.providers import Scripted


@pytest.fixture
def make(make_app: MakeApp, upgraded_url: str) -> MakeApp:
    def make(**settings: Any) -> Flask:
        app = make_app(
            upgraded_url, **{f"COMMUNICATION_{name}": value for name, value in settings.items()}
        )
        install(app, Scripted())
        install(app, Scripted(), type="email")
        return app

    return make


def explained(
    app: Flask, channel: str, to: str, key: str | None = None, sender: str | None = None
) -> str:
    """Return what is foretold, and check that nothing was written."""
    state = state_of(app)
    before = everything(app)
    told = "\n".join(explain.explain(state, channel, to, key, sender))
    assert everything(app) == before
    return told


def everything(app: Flask) -> list[Any]:
    tables = ("message", "usage", "circuit", "suppression", "recipient")
    with state_of(app).database.read() as connection:
        return [
            connection.execute(text(f"SELECT * FROM communication_{one}")).all() for one in tables
        ]


def became(app: Flask, send: Callable[[], str]) -> Message:
    with app.app_context():
        uuid = send()
        work(app)
        return SMS.get(uuid)


def test_a_number_is_read_as_it_is_accepted(make: MakeApp) -> None:
    app = make(DEFAULT_REGION="IN")
    assert f"sms to {TO} by the default one" in explained(app, "sms", "099999 11111")
    assert f"sms to {TO} by the default one" in explained(app, "sms", "+91 (99999) 11111")
    with pytest.raises(InvalidMessage, match="international form"):
        explained(app, "sms", "nobody")
    with pytest.raises(InvalidMessage, match="email address"):
        explained(app, "email", TO)


def test_only_to_is_compared_with_the_number_as_it_is_accepted(make: MakeApp) -> None:
    app = make(ONLY_TO=[TO, "@example.com"])
    assert "-> configuration 1" in explained(app, "sms", "+91 99999 11111")
    assert "COMMUNICATION_ONLY_TO does not list" in explained(app, "sms", "+91 99999 22222")
    assert became(app, lambda: SMS.send_msg("+91 99999 11111", "Hello")).status == "sent"
    assert "-> configuration 2" in explained(app, "email", "Ann <ann@example.com>")


def test_a_redirect_to_another_channel_is_nowhere(make: MakeApp) -> None:
    app = make(REDIRECT_TO="+15550101234")
    assert "sends it to +15550101234 instead" in explained(app, "sms", TO)
    assert "COMMUNICATION_REDIRECT_TO is of another channel" in explained(
        app, "email", "ann@example.com"
    )


@pytest.mark.parametrize(
    ("given", "sender", "says"),
    [
        ({}, None, "for every sender (manual)"),
        ({"sender": "SHOP"}, "shop", "for sender:shop (manual)"),
        ({"sender": "SHOP"}, "BANK", None),
        ({"key": "1"}, None, "for config:1 (manual)"),
        ({"key": "1"}, "SHOP", None),
    ],
)
def test_who_is_suppressed_is_told_with_the_scope(
    make: MakeApp, given: dict[str, Any], sender: str | None, says: str | None
) -> None:
    app = make()
    with app.app_context():
        SMS.suppress(TO, **given)
    told = explained(app, "sms", TO, sender=sender)
    message = became(app, lambda: SMS.send_msg(TO, "Hello", sender=sender))
    if says is None:
        assert "->" in told
        assert message.status == "sent"
    else:
        assert f"nowhere: the recipient is suppressed {says}" in told
        assert "it would be rejected" in told
        assert message.status == "rejected"
        assert message.error in told  # type: ignore[operator]


def test_an_address_is_suppressed_however_it_is_capitalised(make: MakeApp) -> None:
    app = make()
    with app.app_context():
        Email.suppress("ann@example.com", sender="shop@example.com")
    assert "sender:shop@example.com" in explained(
        app, "email", "Ann@Example.com", sender="Shop <shop@example.com>"
    )
    assert "->" in explained(app, "email", "Ann@Example.com", sender="other@example.com")


def test_a_country_that_is_not_allowed_holds_it(make: MakeApp) -> None:
    app = make(ALLOWED_COUNTRIES=["+1"])
    told = explained(app, "sms", TO)
    assert "COMMUNICATION_ALLOWED_COUNTRIES does not list this destination" in told
    assert "release" in told
    message = became(app, lambda: SMS.send_msg(TO, "Hello"))
    assert (message.status, message.error in told) == ("held", True)  # type: ignore[operator]
    assert "held" not in explained(app, "sms", "+15550101234")


@pytest.mark.parametrize(
    "setting",
    [
        {"LIMIT_PER_RECIPIENT": [(1, 86400)]},
        {"LIMIT_PER_DAY": {"sms": 1}},
        {"PREFIX_GROWTH": (1, 1)},
    ],
)
def test_a_limit_that_is_full_holds_it(make: MakeApp, setting: dict[str, Any]) -> None:
    app = make(**setting)
    assert "held" not in explained(app, "sms", TO)
    assert became(app, lambda: SMS.send_msg(TO, "Hello")).status == "sent"
    told = explained(app, "sms", TO)
    assert f"nowhere yet: COMMUNICATION_{next(iter(setting))}" in told
    assert became(app, lambda: SMS.send_msg(TO, "Hello")).status == "held"


def test_weights_say_how_many_begin_where(make: MakeApp) -> None:
    app = make()
    install(app, Scripted(), key="a", weight=0, fallback=["b", "c"])
    install(app, Scripted(), key="b", weight=1)
    install(app, Scripted(), key="c", weight=3)
    told = explained(app, "sms", TO, "a").splitlines()
    assert told[1].startswith("     configuration 3 (a), scripted: well, only in need")
    assert told[2].startswith("  -> configuration 4 (b), scripted: well, begins 25 of 100")
    assert told[3].startswith("  -> configuration 5 (c), scripted: well, begins 75 of 100")


def test_a_paused_circuit_sends_it_by_the_fallback(make: MakeApp) -> None:
    app = make()

    def refuse(_sms: object) -> Any:
        raise Refused("wrong password", http_status=401)

    class Bad(Scripted):
        name = "bad"

    install(app, Bad(refuse), key="bad", fallback=["scripted"])
    store.change(state_of(app), 1, {"key": "scripted"})
    became(app, lambda: SMS.send_msg(TO, "Hello", key="bad"))
    told = explained(app, "sms", TO, "bad").splitlines()
    assert "stopped until it is changed: wrong password" in told[1]
    assert "->" not in told[1]
    assert told[2].startswith("  -> configuration 1 (scripted)")
    store.change(state_of(app), 1, {"enabled": False})
    assert "it would wait until one of them is well" in explained(app, "sms", TO, "bad")
    with pytest.raises(ConfigNotFound):
        explained(app, "sms", TO, "scripted")


def test_a_fallback_that_does_not_exist_is_passed_over(make: MakeApp) -> None:
    app = make()
    store.change(state_of(app), 1, {"fallback": ["ghost"]})
    assert "ghost: passed over, no sms configuration has this key" in explained(app, "sms", TO)


def test_who_waits_for_a_rate_is_told_how_much_is_before_it(make: MakeApp) -> None:
    app = make()
    store.change(state_of(app), 1, {"rate_per_second": 0.1})
    with app.app_context():
        for _ in range(4):
            SMS.send_msg(TO, "Hello")
        work(app)
    told = explained(app, "sms", TO)
    assert "at most 0.1 a second, with " in told
    assert "s of messages before it" in told
