"""Each receiver of a signal is called, whatever the others do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from blinker import NamedSignal
from flask import Flask, current_app

from flask_communication import SMS, signals
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.providers.base import Denied, OutcomeUnknown
from tests.support.apps import MakeApp, install, work
from tests.support.providers import Scripted

SIGNALS = {name: one for name, one in vars(signals).items() if isinstance(one, NamedSignal)}
Heard = dict[str, list[dict[str, Any]]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Connect three receivers to every signal, of which the first raises."""
    heard: Heard = {name: [] for name in SIGNALS}

    def fail(_sender: Flask, **_fields: Any) -> None:
        raise RuntimeError("this receiver is broken")

    def hear_as(name: str) -> Callable[..., None]:
        def hear(sender: Flask, **fields: Any) -> None:
            assert current_app == sender
            heard[name].append(fields)

        return hear

    with ExitStack() as stack:
        for name, signal in SIGNALS.items():
            for receiver in (fail, hear_as(name), hear_as(name)):
                stack.enter_context(signal.connected_to(receiver))
        yield heard


def refuse(_sms: Any) -> Any:
    raise Denied("wrong password")


def lose(_sms: Any) -> Any:
    raise OutcomeUnknown("read timeout")


def cause_every_signal(app: Flask) -> None:
    provider = Scripted()
    install(app, provider)
    with app.app_context():
        delivered, undelivered = (SMS.send_msg("+15550100000", text) for text in ("Hello", "World"))
        work(app)
        provider.reports = {f"ref-{delivered}": "delivered", f"ref-{undelivered}": "undelivered"}
        SMS.sync_delivery_report()
        SMS.receive("+15550100000", "+15550100009", "Hi")
        SMS.send_msg("+447400123456", "This country is not allowed")
        for answer in (lose, refuse):
            provider.answer = answer
            SMS.send_msg("+15550100000", "Hello")
            work(app)
        store.change(state_of(app), 1, {})


def test_a_receiver_that_raises_silences_no_other_whatever_the_signal(
    make_app: MakeApp,
    upgraded_sqlite_url: str,
    heard: Heard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_ALLOWED_COUNTRIES=["+1"])
    with caplog.at_level(logging.ERROR):
        cause_every_signal(app)
    for name, signal in SIGNALS.items():
        assert len(heard[name]) >= 2, name
        assert len(heard[name]) % 2 == 0, name
        assert f"a receiver of the signal {signal.name} failed for" in caplog.text, name


@dataclass(frozen=True)
class Settled:
    uuid: str
    channel: str
    status: str


class Row(NamedTuple):
    """The same, as SQLAlchemy returns it."""

    uuid: str
    channel: str
    status: str


@pytest.mark.parametrize(
    "message",
    [
        {"uuid": "u1", "channel": "sms", "status": "sent"},
        Settled("u1", "sms", "sent"),
        Row("u1", "sms", "sent"),
    ],
    ids=["mapping", "dataclass", "row"],
)
def test_a_message_is_announced_in_whatever_form_it_comes(heard: Heard, message: Any) -> None:
    signals.announce(Flask("host"), [message])
    assert heard["message_sent"] == [
        {"message_uuid": "u1", "channel": "sms", "status": "sent"},
        {"message_uuid": "u1", "channel": "sms", "status": "sent"},
    ]


def test_a_status_without_a_signal_is_not_announced(heard: Heard) -> None:
    signals.announce(Flask("host"), [Settled("u1", "sms", "queued")])
    assert not any(heard.values())
