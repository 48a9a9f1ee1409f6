"""A third channel is a folder of its own, and no branch in the spine: here is one, and it sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from cryptography.fernet import Fernet
from flask import Flask

from flask_communication import Communication
from flask_communication.configs import store
from flask_communication.configs.settings import Settings
from flask_communication.configs.state import current, state_of
from flask_communication.delivery import accept
from flask_communication.delivery.accept import Draft
from flask_communication.delivery.api import MessageAPI
from flask_communication.delivery.channel import Channel
from flask_communication.delivery.outcomes import Dispatch, Result
from flask_communication.providers.base import Accepted, NotSent, Provider
from tests.support.apps import allow, make_due, work


# --- The channel: what a folder `fax/` would hold
class FaxMachine(Provider):
    """A provider of the new channel: its way of sending is its own method."""

    name = "machine"
    types = ("fax",)

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.is_busy = False

    def send_fax(self, key: str, number: str, page: str, config: Mapping[str, Any]) -> Accepted:
        if self.is_busy:
            raise NotSent("the line is busy")
        self.sent.append((number, page))
        return Accepted(f"fax-{key}")


class FaxChannel(Channel):
    """Pages to a fax number."""

    name = "fax"
    lifetime = 3600.0

    def parse_recipient(self, raw: str, settings: Settings) -> str:
        return raw.replace(" ", "")

    def send(
        self, settings: Settings, dispatches: Sequence[Dispatch], payload: object
    ) -> Sequence[Result]:
        (one,) = dispatches
        provider, to = one.route.provider, self.recipient(one.claim, settings)
        assert isinstance(provider, FaxMachine)
        return [provider.send_fax(one.claim.key, to or "", one.claim.body, one.route.config)]


class Fax(MessageAPI):
    """What a user calls."""

    channel = FaxChannel()

    @classmethod
    def send(cls, number: str, page: str, **options: Any) -> str:
        to = cls.channel.parse_recipient(number, current().settings)
        checked = accept.options(options, cls.channel.lifetime)
        return accept.accept(current(), cls.channel, [Draft(to, page, None, None, checked)], None)[
            0
        ]


# --- The tests
TO = "+919999911111"


@pytest.fixture
def machine() -> FaxMachine:
    return FaxMachine()


@pytest.fixture
def app(upgraded_url: str, machine: FaxMachine) -> Flask:
    app = Flask("host")
    app.config.update(
        SECRET_KEY="of a test",
        COMMUNICATION_DATABASE_URL=upgraded_url,
        COMMUNICATION_EMBEDDED_WORKER=False,
        COMMUNICATION_ENCRYPTION_KEYS=[Fernet.generate_key().decode()],
    )
    communication = Communication(authorize=allow)
    communication.register_channel(Fax.channel)
    communication.register_provider(machine)
    communication.init_app(app)
    store.create(state_of(app), {"type": "fax", "provider_pkg_name": "machine"})
    return app


def test_a_third_channel_sends(app: Flask, machine: FaxMachine) -> None:
    with app.app_context():
        uuid = Fax.send("+91 99999 11111", "Hello")
        work(app)
        message = Fax.get(uuid)
        assert [one.uuid for one in Fax.messages().items] == [uuid]
    assert (message.status, message.channel) == ("sent", "fax")
    assert machine.sent == [(TO, "Hello")]


def test_a_third_channel_is_retried_cancelled_and_suppressed_as_the_others_are(
    app: Flask, machine: FaxMachine
) -> None:
    machine.is_busy = True
    with app.app_context():
        uuid = Fax.send(TO, "Hello")
        work(app)
        assert Fax.get(uuid).error == "the line is busy"
        Fax.cancel(uuid)
        machine.is_busy = False
        Fax.retry_send(uuid)
        work(app)
        assert Fax.get(uuid).status == "sent"
        Fax.suppress(TO)
        second = Fax.send(TO, "Again")
        make_due(app)
        work(app)
        assert Fax.get(second).status == "rejected"
        assert Fax.erase(TO) == (2, 0)


def test_rest_and_the_command_line_know_a_third_channel(app: Flask) -> None:
    with app.app_context():
        uuid = Fax.send(TO, "Hello")
    listed = app.test_client().get("/communication/messages?channel=fax").get_json()
    assert [one["uuid"] for one in listed["data"]] == [uuid]
    cancelled = app.test_client().post(f"/communication/messages/{uuid}/cancel")
    assert cancelled.status_code == 200, cancelled.get_json()
    shown = app.test_cli_runner().invoke(args=["communication", "show", uuid])
    assert f"fax {uuid} is cancelled" in shown.output
