"""Fixtures and helpers of the conformance tests: the provider, its vendor, and requests to both."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient

from ...errors import Denied, NotSent, ProviderError, Refused
from ...formats.strict_json import encode_json
from ...providers.base import Accepted, OutboundEmail, OutboundSMS, Provider
from ...providers.blueprint import provider_blueprint
from ...providers.contract import email, signatures, sms
from ...providers.net import hosts
from ...providers.remote import RemoteProvider
from .vendor import HOSTILE, Played, Vendor

SECRET = "whsec_Y29uZm9ybWFuY2U="
_KEY = signatures.signature_key(SECRET)
ROOT = "/conformance/"
# Shorter secrets are not masked, and would be found by chance.
SHORTEST_SECRET = 8


class Fixtures:
    """What the author of a provider declares; see :class:`.ProviderConformance`."""

    channels: Sequence[str] = ("sms",)
    destinations: Mapping[str, str] = {"sms": "+15550100000", "email": "ann@example.com"}
    accepts: Played | None = None
    answers: Mapping[str, tuple[Played, Any]] = {}
    recipients: Mapping[str, Any] = {}
    reports: Mapping[str, tuple[Played, Sequence[tuple[str, str]]]] = {}
    hostile: Mapping[str, tuple[Played, Any]] = HOSTILE

    @pytest.fixture
    def provider(self, vendor: Any) -> Provider:
        """Make the provider, with ``vendor`` as its transport."""
        raise NotImplementedError(f"give {type(self).__name__} a fixture `provider`")

    @pytest.fixture
    def config(self) -> Mapping[str, Any]:
        """Give a configuration with which the vendor accepts."""
        raise NotImplementedError(f"give {type(self).__name__} a fixture `config`")

    @pytest.fixture
    def vendor(self) -> Any:
        """Play the vendor. One of your own needs ``plays(answer)`` and ``heard`` too."""
        return Vendor(self.accepts)

    @pytest.fixture
    def served(self, provider: Provider) -> Flask:
        """Serve the provider at ``/conformance/``, to requests signed with the tests' secret."""
        app = Flask("conformance", root_path="/")
        app.config[hosts.SETTING] = ["0.0.0.0/0", "::/0"]
        app.register_blueprint(provider_blueprint(provider, name="conformance", secret=SECRET))
        return app

    @pytest.fixture(params=["directly", "over the contract"])
    def reached(
        self, request: pytest.FixtureRequest, provider: Provider, served: Flask
    ) -> Provider:
        """Reach the provider directly, or over the contract as another machine would."""
        return provider if request.param == "directly" else remote_of(provider, served)

    @pytest.fixture
    def client(self, served: Flask) -> FlaskClient:
        """Make requests to the served provider."""
        return served.test_client()

    @pytest.fixture(autouse=True)
    def any_address(self) -> Iterator[None]:
        """Let the provider reach a server on this machine."""
        with hosts.unguarded():
            yield

    @pytest.fixture(autouse=True)
    def secrets_stay_secret(
        self, caplog: pytest.LogCaptureFixture, provider: Provider, config: Mapping[str, Any]
    ) -> Iterator[None]:
        """Fail if a log record of any level has a secret in it."""
        with caplog.at_level(logging.DEBUG):
            yield
            records = [*caplog.get_records("setup"), *caplog.get_records("call")]
            said = "\n".join(logging.Formatter().format(one) for one in records)
        check_no_secret(said, "the log", provider, config)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test for each channel, and for each row of a table."""
        cls: Any = metafunc.cls
        people = {
            one: cls.recipients[one] for one in cls.recipients if channel_of(one) in cls.channels
        }
        tables = {
            "hostile_case": {} if cls.accepts is None else cls.hostile,
            "answer_case": cls.answers,
            "recipient_case": {one: (one, expected) for one, expected in people.items()},
            "report_case": cls.reports,
        }
        if "channel" in metafunc.fixturenames:
            metafunc.parametrize("channel", cls.channels)
        for name, table in tables.items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, list(table.values()), ids=list(table))


def remote_of(provider: Provider, served: Flask) -> RemoteProvider:
    """Return a remote provider that reaches the served one."""
    way = httpx.WSGITransport(app=served)
    return RemoteProvider(provider.name, f"https://localhost{ROOT}", SECRET, transport=way)


def channel_of(destination: str) -> str:
    """Return the channel of a recipient."""
    return "email" if "@" in destination else "sms"


def sms_to(destination: str, key: str = "conformance-1", ref: str | None = None) -> OutboundSMS:
    """Make an SMS."""
    return OutboundSMS(key, destination, "Hello from the conformance tests", provider_ref=ref)


def email_to(*recipients: str, key: str = "conformance-1", ref: str | None = None) -> OutboundEmail:
    """Make an email."""
    return OutboundEmail(
        key=key,
        message_id=f"<{key}@sender.example>",
        sender="Conformance <conformance@sender.example>",
        recipients=recipients,
        to=recipients,
        subject="Hello",
        body="Hello from the conformance tests",
        provider_ref=ref,
    )


def send(
    reached: Provider, destination: str, config: Mapping[str, Any], key: str = "conformance-1"
) -> Accepted | ProviderError:
    """Send one message and return its outcome; any other exception fails the test."""
    is_email = channel_of(destination) == "email"
    ended: Accepted | ProviderError = (
        outcome(reached.send_email, email_to(destination, key=key), config)
        if is_email
        else outcome(reached.send_sms, sms_to(destination, key), config)
    )
    return ended


def outcome(method: Any, subject: Any, config: Mapping[str, Any]) -> Any:
    """Run a method of a provider; return its result, or the ProviderError that it raised."""
    try:
        return method(subject, config)
    except ProviderError as failure:
        return failure
    except Exception as wrong:
        fail(
            f"{method.__name__} raised {type(wrong).__name__}; raise NotSent, Refused, Denied or "
            "OutcomeUnknown: any other exception counts as unknown, and an operator must decide",
            wrong,
        )


def fail(why: str, cause: Exception) -> NoReturn:
    """Fail the test, and show the cause."""
    raise AssertionError(why) from cause


def check(ended: Any, expected: Any) -> None:
    """Compare an outcome with its class, an ``Accepted``, or a ``NotSent`` with its time."""
    if isinstance(expected, Accepted):
        assert isinstance(ended, Accepted), f"{ended!r} came instead of {expected!r}"
        assert ended.ref == expected.ref
        return
    kind = expected if isinstance(expected, type) else type(expected)
    if kind is Denied:
        assert isinstance(ended, Refused), f"{ended!r} came instead of Denied"
        assert ended.denies_us, (
            "a wrong key fails every message: raise Denied, or Refused(http_status=401)"
        )
        return
    assert isinstance(ended, kind), f"{ended!r} came instead of {kind.__name__}"
    if isinstance(expected, NotSent):
        wait = getattr(ended, "retry_after", None)
        assert wait == expected.retry_after, (
            f"it said Retry-After: {expected.retry_after}, not {wait}"
        )


def secrets_of(provider: Provider, config: Mapping[str, Any]) -> list[str]:
    """Return the secret settings: all strings that the schema does not declare public."""
    declared = (provider.learn().config_schema or {}).get("properties", {})
    hidden = [one for one in config if one not in declared or declared[one].get("writeOnly")]
    return [config[one] for one in hidden if isinstance(config[one], str) and config[one]]


def check_no_secret(said: str, where: str, provider: Provider, config: Mapping[str, Any]) -> None:
    """Fail if a text repeats a secret, without repeating it once more."""
    found = [place for place, secret in enumerate(secrets_of(provider, config)) if secret in said]
    assert not found, f"{where} repeats a secret of the configuration"


def words_of(ended: Any) -> str:
    """Return all text of an outcome: for an answer, a log or a traceback."""
    if isinstance(ended, ProviderError):
        shown = "".join(traceback.format_exception(ended))
        return f"{shown}{ended.reason}{ended.code}{ended!r}"
    return repr(ended)


def post(client: FlaskClient, path: str, body: Mapping[str, Any]) -> Any:
    """Post a signed body to the served provider."""
    raw = encode_json(body)
    headers = signatures.signature_headers(_KEY, "conformance-1", raw)
    return client.post(ROOT + path, data=raw, headers=headers, content_type="application/json")


def send_body(destination: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the path of a send, and its body."""
    if channel_of(destination) == "email":
        return email.SEND, email.send_body(email_to(destination), config)
    return sms.SEND, sms.send_body("Hello from the conformance tests", destination, config)
