"""The tests for authors of providers: the bundled providers pass them, and planted faults do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from flask import Flask
from mail_servers import PASSWORD, USER, Post, sink
from seed_provider import served

from flask_communication.errors import Denied, NotSent, OutcomeUnknown, Refused
from flask_communication.providers.base import Accepted, Provider
from flask_communication.providers.blueprint import provider_blueprint
from flask_communication.providers.remote import RemoteProvider
from flask_communication.providers.simulator import Simulator
from flask_communication.providers.smtp import SMTP
from flask_communication.testing import ProviderConformance

SECRET = "whsec_c2VjcmV0"


class TestSimulator(ProviderConformance):
    channels = ("sms", "email")
    recipients = {
        "+15550100001": Accepted,
        "+15550100003": Refused,
        "+15550100004": NotSent,
        "+15550100006": OutcomeUnknown,
        "+15550100007": NotSent,
        "+15550100009": Refused,
        "rejected@example.com": Refused,
        "throttled@example.com": NotSent,
        "unknown@example.com": OutcomeUnknown,
    }

    @pytest.fixture
    def provider(self) -> Provider:
        return Simulator()

    @pytest.fixture
    def config(self) -> Mapping[str, Any]:
        return {}


class TestSimulatorOverTheContract(TestSimulator):
    """The same at the end of two contracts, one of them over a socket."""

    @pytest.fixture
    def provider(self) -> Iterator[Provider]:  # type: ignore[override]
        app = Flask("vendor", root_path="/")
        app.register_blueprint(provider_blueprint(Simulator(), secret=SECRET))
        with served(app) as url:
            yield RemoteProvider("simulator", f"{url}/simulator", SECRET)


def accept(request: httpx.Request) -> httpx.Response:
    if request.method == "GET":
        return httpx.Response(404)
    return httpx.Response(200, json={"success": True, "msg": "Queued", "data": {"msg_uuid": "r1"}})


class TestRemote(ProviderConformance):
    """The client of the contract, before a vendor that speaks it."""

    accepts = staticmethod(accept)
    answers = {
        "it took it": ((200, {"success": True, "data": {"msg_uuid": 42}}), Accepted("42")),
        "it refuses": ((200, {"success": False, "msg": "no", "outcome": "rejected"}), Refused),
        "it refuses us": ((200, {"success": False, "msg": "no", "outcome": "denied"}), Denied),
        "later": (
            (200, {"success": False, "outcome": "not_sent", "retry_after": 9}),
            NotSent("", retry_after=9),
        ),
        "it cannot tell": ((200, {"success": False, "outcome": "unknown"}), OutcomeUnknown),
    }
    reports = {
        "words": (
            (
                200,
                {
                    "success": True,
                    "data": [{"msg_uuid": "1", "status": "DELIVRD"}, {"msg_uuid": "2", "status": "?"}],
                },
            ),
            [("1", "delivered")],
        ),
        "nothing": ((200, {"success": True, "data": []}), []),
    }

    @pytest.fixture
    def provider(self, vendor: Any) -> Provider:
        return RemoteProvider("parrot", "https://parrot.example", SECRET, transport=vendor)

    @pytest.fixture
    def config(self) -> Mapping[str, Any]:
        return {"authkey": "CANARY_9f81"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    post = Post({"gone@x.example": "550 5.1.1 no such user", "full@x.example": "452 4.2.2 full"})
    with sink(post, login=True) as port:
        yield port


class TestSMTP(ProviderConformance):
    channels = ("email",)
    recipients = {"gone@x.example": Refused, "full@x.example": NotSent}

    @pytest.fixture
    def provider(self) -> Provider:
        # aiosmtpd's stop waits, on newer Pythons, until we have left.
        return SMTP(keep=0.05)

    @pytest.fixture
    def config(self, port: int) -> Mapping[str, Any]:
        return {"host": "127.0.0.1", "port": port, "security": "none", "username": USER, "password": PASSWORD}


def failures(pytester: pytest.Pytester, base: str, fault: str) -> set[str]:
    """Run the tests for a faulty provider and return the names of those that failed."""
    made = f"made = planted.{fault}" if fault else "pass"
    pytester.makepyfile(f"import planted\n\n\nclass TestIt(planted.{base}):\n    {made}\n")
    ran = pytester.inline_run("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    passed, _, failed = ran.listoutcomes()
    assert len(passed) > 40
    return {one.nodeid.partition("::test_")[2].partition("[")[0] for one in failed}


@pytest.mark.parametrize("base", ["SoundSMS", "SoundEmail"])
def test_a_sound_provider_passes(pytester: pytest.Pytester, base: str) -> None:
    assert failures(pytester, base, "Sound") == set()


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ("QuotesTheSecret", "a_hostile_vendor_has_its_outcome"),
        ("QuotesTheVendor", "a_vendor_that_repeats_secrets_is_not_quoted"),
        ("LogsTheSecret", "an_accepted_message_has_a_reference"),
        ("ReturnsTheSecret", "an_acceptance_is_answered_as_the_contract_says"),
        ("ShowsTheSecret", "what_it_shows_of_itself_has_no_secret"),
        ("RaisesValueError", "a_hostile_vendor_has_its_outcome"),
        ("StumblesOverReports", "a_hostile_vendor_does_not_break_the_other_calls"),
        ("AnswersTooFew", "a_batch_has_one_result_each"),
        ("PromisesABatch", "what_it_promises_it_can_do"),
        ("ForgetsTheKey", "a_repeated_key_rings_once"),
        ("RingsTwice", "a_repeated_key_rings_once"),
        ("SwallowsA429", "a_hostile_vendor_has_its_outcome"),
        ("GivesUpOnA429", "a_hostile_vendor_has_its_outcome"),
        ("ForgetsRetryAfter", "a_hostile_vendor_has_its_outcome"),
        ("BelievesEveryAnswer", "a_hostile_vendor_has_its_outcome"),
        ("CallsATimeoutNotSent", "a_hostile_vendor_has_its_outcome"),
        ("TriesAgainByItself", "a_hostile_vendor_has_its_outcome"),
        ("CallsWithoutItsKey", "without_what_is_required_nothing_leaves"),
        ("ReportsStrangers", "reports_are_about_what_was_asked"),
        ("SaysItsOwnWords", "the_vendors_words_are_ours"),
        ("ReturnsNothing", "an_accepted_message_has_a_reference"),
        ("StumblesOverSettings", "strange_settings_break_nothing"),
    ],
)
def test_a_planted_fault_is_caught(pytester: pytest.Pytester, fault: str, caught: str) -> None:
    assert caught in failures(pytester, "SoundSMS", fault)


@pytest.mark.parametrize("fault", ["QuotesTheSecret", "RaisesValueError", "SwallowsA429", "ForgetsTheKey"])
def test_a_planted_fault_is_caught_in_an_email_too(pytester: pytest.Pytester, fault: str) -> None:
    assert failures(pytester, "SoundEmail", fault)


def test_an_open_blueprint_is_caught(pytester: pytest.Pytester) -> None:
    assert failures(pytester, "LetsAnybodyIn", "Sound") == {"an_unsigned_call_is_refused"}
