"""The tests for authors of providers: the bundled providers pass them, and those with a fault do
not.
"""

from __future__ import annotations

import imaplib
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask

from flask_communication.errors import Denied, NotSent, OutcomeUnknown, Refused
from flask_communication.providers.base import Accepted, Provider
from flask_communication.providers.blueprint import provider_blueprint
from flask_communication.providers.remote import RemoteProvider
from flask_communication.providers.simulator import Simulator
from flask_communication.providers.smtp import SMTP
from flask_communication.testing import ProviderConformance
from tests.support import faulty_providers as faulty
from tests.support.mail_servers import PASSWORD, USER, Post, certificate, mailboxes, sink
from tests.support.seed_provider import served

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
    def provider(self) -> Iterator[Provider]:
        app = Flask("vendor", root_path="/")
        app.register_blueprint(provider_blueprint(Simulator(), secret=SECRET))
        with served(app) as url:
            yield RemoteProvider("simulator", f"{url}/simulator", SECRET)


class TestRemote(ProviderConformance):
    """The client of the contract, before a vendor that speaks it."""

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
                    "data": [
                        {"msg_uuid": "1", "status": "DELIVRD"},
                        {"msg_uuid": "2", "status": "?"},
                    ],
                },
            ),
            [("1", "delivered")],
        ),
        "nothing": ((200, {"success": True, "data": []}), []),
    }

    def accepts(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(404)
        return httpx.Response(
            200, json={"success": True, "msg": "Queued", "data": {"msg_uuid": "r1"}}
        )

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


@pytest.fixture(scope="module")
def imap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    shown, _ = certificate(tmp_path_factory.mktemp("imap"))
    with mailboxes(shown) as port, imaplib.IMAP4("localhost", port) as box:
        box.starttls(ssl.create_default_context(cafile=str(shown)))
        box.login("demouser", "demopass")
        for number in range(12):
            box.append(
                "INBOX",
                "",
                imaplib.Time2Internaldate(1_700_000_000),
                b"Subject: %d\r\n\r\nHi" % number,
            )
        yield port, shown


class TestSMTP(ProviderConformance):
    """SMTP and IMAP, before real servers of both."""

    channels = ("email",)
    recipients = {"gone@x.example": Refused, "full@x.example": NotSent}

    @pytest.fixture
    def provider(self) -> Provider:
        # aiosmtpd's stop waits, on newer Pythons, until we have left.
        return SMTP(keep=0.05)

    @pytest.fixture
    def config(
        self, port: int, imap: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
    ) -> Mapping[str, Any]:
        monkeypatch.setenv("SSL_CERT_FILE", str(imap[1]))
        smtp = {
            "host": "127.0.0.1",
            "port": port,
            "security": "none",
            "username": USER,
            "password": PASSWORD,
        }
        inbox = {"imap_host": "localhost", "imap_port": imap[0], "imap_security": "starttls"}
        return {**smtp, **inbox, "imap_username": "demouser", "imap_password": "demopass"}

    def test_its_mailbox_has_mails(self, reached: Provider, config: Mapping[str, Any]) -> None:
        found = reached.fetch_inbox({}, 10, config)
        assert (len(found.mails), found.more) == (10, True)


class TestSMTPWithoutAMailbox(ProviderConformance):
    channels = ("email",)

    @pytest.fixture
    def provider(self) -> Provider:
        return SMTP(keep=0.05)

    @pytest.fixture
    def config(self, port: int) -> Mapping[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": port,
            "security": "none",
            "username": USER,
            "password": PASSWORD,
        }


def failures(pytester: pytest.Pytester, base: str, fault: str, only: str = "test") -> set[str]:
    """Run the tests for a faulty provider and return the names of those that failed."""
    body = f"class TestIt(faulty.{base}):\n    made = faulty.{fault}\n"
    pytester.makepyfile(f"from tests.support import faulty_providers as faulty\n\n\n{body}")
    ran = pytester.inline_run(
        "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-k", only
    )
    passed, _, failed = ran.listoutcomes()
    assert len(passed) + len(failed) >= (40 if only == "test" else 1)
    return {one.nodeid.partition("::test_")[2].partition("[")[0] for one in failed}


@pytest.mark.parametrize(
    ("base", "made"), [("SoundSMS", "Sound"), ("SoundEmail", "Sound"), ("Simulated", "WithInbox")]
)
def test_a_sound_provider_passes(pytester: pytest.Pytester, base: str, made: str) -> None:
    assert failures(pytester, base, made) == set()


def base_of(fault: str) -> str:
    return "Simulated" if issubclass(getattr(faulty, fault), Simulator) else "SoundSMS"


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        ("QuotesTheSecret", "a_hostile_vendor_has_its_outcome"),
        ("QuotesTheVendor", "a_vendor_that_repeats_secrets_is_not_quoted"),
        ("LogsTheSecret", "an_accepted_message_has_a_reference"),
        ("ReturnsTheSecret", "an_acceptance_is_answered_as_the_contract_says"),
        ("ShowsTheSecret", "what_it_shows_of_itself_has_no_secret"),
        ("RaisesValueError", "a_hostile_vendor_has_its_outcome"),
        ("StumblesOverReports", "a_hostile_vendor_does_not_break_the_other_requests"),
        ("AnswersTooFew", "a_batch_has_one_result_each"),
        ("PromisesABatch", "what_it_promises_it_can_do"),
        ("ForgetsTheKey", "a_repeated_key_sends_once"),
        ("RingsTwice", "a_repeated_key_sends_once"),
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
        ("HasNoName", "it_has_a_name_and_possible_numbers"),
        ("DeclaresNothing", "its_settings_are_declared"),
        ("BreaksOnARetry", "a_retry_is_taken_too"),
        ("KeepsTheMessage", "many_threads_may_send_at_once"),
        ("MixesUpABatch", "a_batch_keeps_its_order"),
        ("BlamesEverybody", "a_recipient_fails_alone"),
        ("TakesWhomItRefuses", "a_recipient_has_its_outcome"),
        ("ReadsTheSameAgain", "an_inbox_is_read_on_from_its_cursor"),
    ],
)
def test_a_fault_is_caught(pytester: pytest.Pytester, fault: str, caught: str) -> None:
    assert failures(pytester, base_of(fault), fault, caught) == {caught}


@pytest.mark.parametrize(
    "fault", ["QuotesTheSecret", "RaisesValueError", "SwallowsA429", "ForgetsTheKey"]
)
def test_a_fault_is_caught_in_an_email_too(pytester: pytest.Pytester, fault: str) -> None:
    assert failures(pytester, "SoundEmail", fault)


def test_an_open_blueprint_is_caught(pytester: pytest.Pytester) -> None:
    assert failures(pytester, "LetsAnybodyIn", "Sound") == {"an_unsigned_request_is_refused"}


def test_the_documentations_example_passes(pytester: pytest.Pytester) -> None:
    text = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
    (example,) = re.findall(
        r"^```python\n(.*?)^```$", text.partition("## A provider")[2], re.MULTILINE | re.DOTALL
    )
    acme = Path(__file__).parents[3] / "examples" / "flask_communication_acme"
    pytester.syspathinsert(acme)
    pytester.makepyfile(f"import pytest\nfrom flask_communication_acme import Acme\n\n{example}")
    passed, _, failed = pytester.inline_run("-q", "-p", "no:cacheprovider").listoutcomes()
    assert len(passed) > 90
    assert failed == []
