"""``show``, ``explain``, ``retry``, ``cancel``, ``resolve`` and ``release``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flask import Flask

from flask_communication import SMS, Email
from flask_communication.errors import OutcomeUnknown, Refused
from flask_communication.providers.base import Accepted, OutboundEmail, OutboundSMS
from tests.support.apps import install, work
from tests.support.commands import run
from tests.support.providers import Scripted

MakeApp = Callable[..., Flask]
TO = "+919999911111"


def test_a_story_tells_attempts_events_and_what_comes_next(app: Flask) -> None:
    provider = Scripted()
    install(app, provider, key="otp")
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        provider.reports[f"ref-{uuid}"] = "delivered"
        SMS.sync_delivery_report()
    told = run(app, "show", uuid)
    for words in ("is delivered", "(otp)", "accepted after", f"as ref-{uuid}", "report: delivered"):
        assert words in told
    assert "next: nothing, it is over" in told
    assert "Hello" not in told


def test_a_long_error_is_cut_in_the_table_and_whole_in_the_story(app: Flask) -> None:
    def refuse(sms: object) -> Any:
        raise Refused("it was refused because " * 20)

    install(app, Scripted(refuse))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
    line = run(app, "messages").splitlines()[1]
    assert line.endswith("…")
    assert len(line) < 170
    assert "it was refused because " * 10 in run(app, "show", uuid)


def test_explain_says_by_which_configuration_and_why(app: Flask) -> None:
    run(app, "config", "add", "--type", "sms", "--provider-pkg-name", "simulator", "--key", "spare")
    run(
        app,
        *("config", "add", "--type", "sms", "--provider-pkg-name", "simulator", "--key", "main"),
        *("--fallback", "spare", "--rate", "5", "--weight", "80"),
    )
    told = run(app, "explain", "sms", TO, "--key", "main")
    assert "(main), simulator: well, begins 80 of 100, at most 5 a second" in told
    assert told.index("(main), simulator") < told.index("(spare), simulator")
    assert "nobody" in run(app, "explain", "sms", TO, "--key", "nobody", expect=1)
    assert "-> configuration" in run(app, "explain", "sms", TO)


@pytest.fixture(params=["sms", "email"])
def in_doubt(app: Flask, request: pytest.FixtureRequest) -> str:
    """Give the uuid of an SMS, or an email, of which nobody knows whether it has arrived."""

    class Lossy(Scripted):
        name = "lossy"

        def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
            raise OutcomeUnknown("the connection broke")

        def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
            raise OutcomeUnknown("the connection broke")

    install(app, Lossy(), type=request.param)
    with app.app_context():
        if request.param == "sms":
            uuid = SMS.send_msg(TO, "Hello")
        else:
            uuid = Email(to="ann@example.com", body="Hello", sender="shop@example.com").send()
        work(app)
    return uuid


def test_a_person_resolves_retries_and_cancels_on_the_command_line(
    app: Flask, in_doubt: str
) -> None:
    assert f"flask communication resolve {in_doubt} sent|resend|drop" in run(app, "show", in_doubt)
    assert "must be one of sent, resend, drop" in run(app, "resolve", in_doubt, "maybe", expect=1)
    assert "cannot be retried" in run(app, "retry", in_doubt, expect=1)
    assert "is resolved: drop" in run(app, "resolve", in_doubt, "drop")
    told = run(app, "show", in_doubt)
    assert "is failed" in told
    assert "it is over; to repeat it: flask communication retry " in told
    assert "cannot be resolved" in run(app, "resolve", in_doubt, "sent", expect=1)
    assert "is queued" in run(app, "retry", in_doubt, "--force")
    assert "is cancelled" in run(app, "cancel", in_doubt)
    assert "cannot be cancelled" in run(app, "cancel", in_doubt, expect=1)


@pytest.mark.parametrize(
    "words", [["resolve", "no-such-uuid", "sent"], ["retry", "none"], ["cancel", "none"]]
)
def test_a_decision_about_no_message_is_one_line(app: Flask, words: list[str]) -> None:
    assert run(app, *words, expect=1).startswith("Error: there is no message")


def test_release_says_what_was_released_and_what_was_not(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app = make_app(upgraded_url, COMMUNICATION_ALLOWED_COUNTRIES=["+1"])
    install(app, Scripted())
    with app.app_context():
        held, other = (SMS.send_msg(TO, "Hello") for _ in range(2))
        work(app)
    told = run(app, "release", held, "no-such-uuid", other, expect=1)
    assert "2 released" in told
    assert "Error: there is no message no-such-uuid" in told
    assert told.count("Error") == 1
