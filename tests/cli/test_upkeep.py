"""``erase``: a recipient is erased on all channels."""

from __future__ import annotations

from flask import Flask

from flask_communication import SMS, Email
from flask_communication.configs.state import state_of
from flask_communication.delivery import accept
from flask_communication.delivery.accept import Draft
from flask_communication.sms.channel import SMSChannel
from flask_communication.storage import messages
from tests.support.apps import install
from tests.support.commands import run
from tests.support.providers import Scripted

TO = "+919999911111"


class Fax(SMSChannel):
    """A channel of the host."""

    name = "fax"


def test_a_recipient_is_erased_on_all_channels_and_the_others_stay(app: Flask) -> None:
    state = state_of(app)
    state.channels["fax"] = Fax()
    for channel in ("sms", "fax", "email"):
        install(app, Scripted(), type=channel)
    sender = "shop@example.com"
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        accept.accept(state, Fax(), [Draft(TO, "Hello", None, None, accept.options({}, 60))], None)
        Email("ann@example.com", "Hi", "Hi", cc=["bob@example.com"], sender=sender).send()
        kept = {
            SMS.send_msg("+919999922222", "Hi"),
            Email("kim@example.com", "", "Hi", sender=sender).send(),
        }
    assert "2 messages deleted" in run(app, "erase", "+91 99999 11111", "--yes")
    assert "1 messages deleted" in run(app, "erase", "Bob@example.com", input="y\n")
    left = messages.page(state.database, channels=state.channels).items
    assert {one.uuid for one in left} == kept


def test_nothing_is_erased_before_a_person_agrees(app: Flask) -> None:
    install(app, Scripted())
    with app.app_context():
        SMS.send_msg(TO, "Hello")
    run(app, "erase", TO, input="n\n", expect=1)
    assert "1 messages deleted" in run(app, "erase", TO, "--yes")
