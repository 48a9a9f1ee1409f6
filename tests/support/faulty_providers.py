"""A sound provider, and the same with one fault each, for the tests of conformance tests."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
from flask import Flask

from flask_communication.providers.base import (
    Accepted,
    InboundEmail,
    Inbox,
    NotSent,
    OutboundEmail,
    OutboundSMS,
    OutcomeUnknown,
    Provider,
    ProviderError,
    Refused,
    Report,
    ReportStatus,
)
from flask_communication.providers.blueprint import provider_blueprint
from flask_communication.providers.http import Http, Reply, classify
from flask_communication.providers.simulator import Simulator
from flask_communication.testing import ProviderConformance

log = logging.getLogger("faulty_providers")


class Sound(Provider):
    """Sends SMS and email, one or many a call, and passes the key on."""

    name = "sound"
    types = ("sms", "email")
    features = frozenset({"bulk"})
    idempotency_window = 3600.0
    config_schema = {
        "type": "object",
        "required": ["api_key"],
        "properties": {"api_key": {"type": "string", "writeOnly": True}},
    }
    words: Mapping[str, ReportStatus] = {"DELIVRD": "delivered", "UNDELIV": "undelivered"}

    def __init__(self, vendor: httpx.BaseTransport) -> None:
        self.http = Http(transport=vendor)

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        return self.accepted(self.call("sms", {"to": sms.destination, "key": sms.key}, config))

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        return self.accepted(
            self.call("email", {"to": list(email.recipients), "key": email.key}, config)
        )

    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        results: list[Accepted | ProviderError] = []
        for sms in batch:
            try:
                results.append(self.send_sms(sms, config))
            except ProviderError as failure:
                results.append(failure)
        return results

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        reply = self.call("reports", {"ids": list(refs)}, config)
        said = reply.json.get("reports") if isinstance(reply.json, dict) else None
        found = [one for one in (said if isinstance(said, list) else ()) if isinstance(one, dict)]
        pairs = [(str(one.get("id")), self.words.get(str(one.get("state")))) for one in found]
        return [Report(ref, word) for ref, word in pairs if word and ref in refs]

    def call(self, path: str, body: Mapping[str, Any], config: Mapping[str, Any]) -> Reply:
        if not isinstance(config.get("api_key"), str) or not config["api_key"]:
            raise Refused("the configuration has no api_key")
        headers = {"Authorization": f"Bearer {config['api_key']}"}
        return self.read(
            self.http.post_json(f"https://sound.example/{path}", body, headers), config
        )

    def read(self, reply: Reply, config: Mapping[str, Any]) -> Reply:
        return classify(reply, config)

    def accepted(self, reply: Reply) -> Accepted:
        if not isinstance(reply.json, dict) or not reply.json.get("id"):
            raise OutcomeUnknown("the vendor answered without an id", http_status=reply.status)
        return Accepted(str(reply.json["id"]))


class Conformance(ProviderConformance):
    """The tests, for whichever of them ``made`` is."""

    channels: tuple[str, ...] = ("sms", "email")
    made: type[Provider] = Sound
    accepts = (200, {"id": "m1"})
    reports = {
        "words": (
            (
                200,
                {
                    "reports": [
                        {"id": 1, "state": "DELIVRD"},
                        {"id": 2, "state": "NEW"},
                        {"id": "other"},
                    ]
                },
            ),
            [("1", "delivered")],
        )
    }

    @pytest.fixture
    def provider(self, vendor: Any) -> Provider:
        return self.made(vendor)  # type: ignore[call-arg]

    @pytest.fixture
    def config(self) -> Mapping[str, Any]:
        return {"api_key": "CANARY_9f81"}


class SoundSMS(Conformance):
    """Reports are of SMS only."""

    channels = ("sms",)


class SoundEmail(Conformance):
    channels = ("email",)
    reports = {}


class QuotesTheSecret(Sound):
    def read(self, reply: Reply, config: Mapping[str, Any]) -> Reply:
        if reply.status == 401:
            raise Refused(f"the key {config['api_key']} is wrong", http_status=401)
        return classify(reply, config)


class QuotesTheVendor(Sound):
    def read(self, reply: Reply, config: Mapping[str, Any]) -> Reply:
        return classify(reply)


class LogsTheSecret(Sound):
    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        log.debug("sending by %s", config)
        return super().send_sms(sms, config)


class ReturnsTheSecret(Sound):
    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        return Accepted(super().send_sms(sms, config).ref, {"used": dict(config)})


class ShowsTheSecret(Sound):
    config_schema = {**Sound.config_schema, "description": "such as CANARY_9f81"}


class RaisesValueError(Sound):
    def accepted(self, reply: Reply) -> Accepted:
        if not isinstance(reply.json, dict):
            raise ValueError("not JSON")
        return super().accepted(reply)


class StumblesOverReports(Sound):
    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        found = self.call("reports", {"ids": list(refs)}, config).json["reports"]
        return [Report(str(one["id"]), self.words[one["state"]]) for one in found]


class AnswersTooFew(Sound):
    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        return super().send_sms_bulk(batch, config)[1:]


class PromisesABatch(Sound):
    send_sms_bulk = Provider.send_sms_bulk


class ForgetsTheKey(Sound):
    def call(self, path: str, body: Mapping[str, Any], config: Mapping[str, Any]) -> Reply:
        return super().call(path, {**body, "key": "none"}, config)


class RingsTwice(Sound):
    """Passes the key on, and makes a new message of every call."""

    rang = 0

    def accepted(self, reply: Reply) -> Accepted:
        self.rang += 1
        return Accepted(f"{super().accepted(reply).ref}-{self.rang}")


class SwallowsA429(Sound):
    def read(self, reply: Reply, config: Mapping[str, Any]) -> Reply:
        return Reply(200, {}, {"id": "m1"}) if reply.status == 429 else classify(reply, config)


class GivesUpOnA429(Sound):
    def read(self, reply: Reply, config: Mapping[str, Any]) -> Reply:
        if reply.status == 429:
            raise Refused("too many requests", http_status=429)
        return classify(reply, config)


class ForgetsRetryAfter(Sound):
    def read(self, reply: Reply, config: Mapping[str, Any]) -> Reply:
        if reply.status == 429:
            raise NotSent("too many requests", http_status=429)
        return classify(reply, config)


class BelievesEveryAnswer(Sound):
    def accepted(self, reply: Reply) -> Accepted:
        return Accepted("m1")


class CallsATimeoutNotSent(Sound):
    def call(self, path: str, body: Mapping[str, Any], config: Mapping[str, Any]) -> Reply:
        try:
            return super().call(path, body, config)
        except OutcomeUnknown as failure:
            raise NotSent(failure.reason) from None


class TriesAgainByItself(Sound):
    idempotency_window = 0.0

    def call(self, path: str, body: Mapping[str, Any], config: Mapping[str, Any]) -> Reply:
        try:
            return super().call(path, body, config)
        except OutcomeUnknown:
            return super().call(path, body, config)


class CallsWithoutItsKey(Sound):
    def call(self, path: str, body: Mapping[str, Any], config: Mapping[str, Any]) -> Reply:
        return super().call(path, body, {"api_key": "anonymous", **config})


class ReportsStrangers(Sound):
    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        return [*super().sms_reports(refs, config), Report("a stranger", "delivered")]


class SaysItsOwnWords(Sound):
    words = {"DELIVRD": "DELIVRD"}  # type: ignore[dict-item]


class ReturnsNothing(Sound):
    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        super().send_sms(sms, config)
        return None  # type: ignore[return-value]


class StumblesOverSettings(Sound):
    def call(self, path: str, body: Mapping[str, Any], config: Mapping[str, Any]) -> Reply:
        return super().call(path, body, {**config, "api_key": config.get("api_key", "").strip()})


class LetsAnybodyIn(SoundSMS):
    """Its own blueprint asks for no signature."""

    @pytest.fixture
    def served(self, provider: Provider) -> Flask:
        app = Flask("bench", root_path="/")
        app.register_blueprint(provider_blueprint(provider, name="conformance", unsigned=True))
        return app


class HasNoName(Sound):
    name = ""


class DeclaresNothing(Sound):
    config_schema = {"type": "object", "properties": {}}


class BreaksOnARetry(Sound):
    def retry_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        raise KeyError(sms.provider_ref)


class KeepsTheMessage(Sound):
    """Has one socket, as it were, which two threads cannot use at once."""

    busy = False

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        if self.busy:
            raise NotSent("busy")
        self.busy = True
        # The other threads of the test come in this time.
        time.sleep(0.03)
        try:
            return super().send_sms(sms, config)
        finally:
            self.busy = False


class Simulated(ProviderConformance):
    """The tests, for a provider that goes by the recipient."""

    channels = ("sms", "email")
    made: type[Provider] = Simulator
    recipients = {
        "+15550100003": Refused,
        "+15550100000": Accepted,
        "rejected@example.com": Refused,
    }

    @pytest.fixture
    def provider(self) -> Provider:
        return self.made()

    @pytest.fixture
    def config(self) -> Mapping[str, Any]:
        return {}


class MixesUpABatch(Simulator):
    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        return super().send_sms_bulk(batch, config)[::-1]


class BlamesEverybody(Simulator):
    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        taken = super().send_email(email, config)
        return Accepted(
            taken.ref, failed={one: Refused("no") for one in email.recipients if taken.failed}
        )


class TakesWhomItRefuses(Simulator):
    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        return Accepted("r1")


class WithInbox(Simulator):
    features = frozenset({"bulk", "inbox"})

    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        last = int(cursor.get("last", 0))
        return Inbox([InboundEmail(str(last + 1), b"Subject: Hi\r\n\r\nHi")], {"last": last + 1})


class ReadsTheSameAgain(WithInbox):
    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        return super().fetch_inbox({}, limit, config)
