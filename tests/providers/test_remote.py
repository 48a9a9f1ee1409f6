"""A provider reached over HTTP: what is sent, and how each kind of answer is understood."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from flask_communication.errors import NotSent, OutcomeUnknown, Refused, SettingError
from flask_communication.providers.base import Accepted, Capabilities, OutboundSMS, Provider
from flask_communication.providers.contract import signatures
from flask_communication.providers.remote import RemoteProvider
from flask_communication.providers.simulator import Simulator
from flask_communication.providers.smtp import SMTP
from flask_communication.testing.standin import StandIn
from tests.support.loopback import answer, request_of, server
from tests.support.seed_provider import SeedProvider, seed_app, served

pytestmark = pytest.mark.usefixtures("any_address")

NUMBER = "+919999911111"
CONFIG = {"authkey": "CANARY_9f81"}
MANIFEST = {"name": "acme", "types": ["sms"], "features": ["stateless", "bulk"]}
QUEUED = {"success": True, "msg": "Successfully queued", "data": {"msg_uuid": "r1"}}


def sms(key: str = "k1", ref: str | None = None, destination: str = NUMBER) -> OutboundSMS:
    return OutboundSMS(key, destination, "Hello World", provider_ref=ref)


@dataclass
class Vendor:
    """A server that answers every post alike, and remembers what it was asked."""

    answer: Any = field(default_factory=lambda: httpx.Response(200, json=QUEUED))
    manifest: Any = None
    asked: list[httpx.Request] = field(default_factory=list)
    manifest_reads: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            self.manifest_reads += 1
            given = httpx.Response(404) if self.manifest is None else self.manifest
        else:
            self.asked.append(request)
            given = self.answer
        if isinstance(given, Exception):
            raise given
        if isinstance(given, httpx.Response):
            return httpx.Response(given.status_code, headers=given.headers, content=given.content)
        return httpx.Response(200, json=given)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.asked]

    @property
    def paths(self) -> list[str]:
        return [request.url.path for request in self.asked]


def provider(vendor: Vendor, secret: str | None = None) -> RemoteProvider:
    return RemoteProvider("acme", "https://acme.example/p/", secret, httpx.MockTransport(vendor))


@pytest.fixture
def memory() -> SeedProvider:
    return SeedProvider()


@pytest.fixture
def seed_url(memory: SeedProvider) -> Iterator[str]:
    with served(seed_app(memory)) as url:
        yield url + "/seedsms"


def test_a_seed_only_provider_works_unchanged(memory: SeedProvider, seed_url: str) -> None:
    remote = RemoteProvider("seedsms", seed_url)
    first = remote.send_sms(sms("k1"), CONFIG)
    again = remote.retry_sms(sms("k2", first.ref), CONFIG)
    reports = remote.sms_reports([first.ref, "stranger"], CONFIG)
    assert again.ref == first.ref == "seed-1"
    assert [(one.ref, one.status) for one in reports] == [("seed-1", "delivered")]
    assert [one.key for one in memory.rang] == ["k1", "k2"]
    assert memory.configs == [CONFIG]
    assert memory.refused == []
    assert memory.duplicates == 1


def test_a_seed_only_provider_has_no_features(seed_url: str) -> None:
    remote = RemoteProvider("seedsms", seed_url)
    assert remote.learn() == Capabilities(label="seedsms")


def test_a_send_goes_to_the_seeds_path_with_the_key() -> None:
    vendor = Vendor()
    assert provider(vendor).send_sms(sms(), CONFIG) == Accepted("r1")
    assert vendor.paths == ["/p/sms/send/"]
    assert vendor.bodies == [{"msg": "Hello World", "destination": NUMBER, "config": CONFIG}]
    assert vendor.asked[0].headers["idempotency-key"] == "k1"
    assert "webhook-signature" not in vendor.asked[0].headers


def test_a_send_does_not_wait_for_a_manifest() -> None:
    vendor = Vendor()
    provider(vendor).send_sms(sms(), CONFIG)
    assert vendor.manifest_reads == 0


def test_without_a_manifest_a_retry_and_a_report_carry_the_seeds_keys_only() -> None:
    vendor = Vendor(answer={"success": True, "data": []})
    remote = provider(vendor)
    remote.retry_sms(sms(ref="r1"), CONFIG)
    remote.sms_reports(["r1"], CONFIG)
    assert vendor.bodies == [{"msg_uuid": "r1"}, {"msg_uuids": ["r1"]}]
    assert vendor.paths == ["/p/sms/retry/", "/p/sms/delivery_report/"]


def test_a_stateless_provider_gets_the_whole_message_with_a_retry() -> None:
    vendor = Vendor(answer={"success": True, "data": []}, manifest=MANIFEST)
    remote = provider(vendor)
    remote.retry_sms(sms(ref="r1"), CONFIG)
    remote.sms_reports(["r1"], CONFIG)
    assert vendor.bodies == [
        {"msg_uuid": "r1", "msg": "Hello World", "destination": NUMBER, "config": CONFIG},
        {"msg_uuids": ["r1"], "config": CONFIG},
    ]


def test_a_secret_signs_the_bytes_of_the_body() -> None:
    vendor = Vendor()
    provider(vendor, "whsec_c2VjcmV0").send_sms(sms(), CONFIG)
    sent = vendor.asked[0]
    assert signatures.is_signed(
        [b"secret"],
        sent.content,
        message_id=sent.headers["webhook-id"],
        timestamp=sent.headers["webhook-timestamp"],
        signatures=sent.headers["webhook-signature"],
    )


def test_an_unusable_secret_is_a_wrong_setting() -> None:
    with pytest.raises(SettingError):
        provider(Vendor(), "whsec_***")


def test_a_secret_is_not_in_the_repr() -> None:
    assert "CANARY" not in repr(provider(Vendor(), "CANARY_secret"))


def test_the_extra_of_an_acceptance_is_kept() -> None:
    data = {"msg_uuid": 12345, "extra_data": {"cost": 1}}
    vendor = Vendor(answer={"success": True, "data": data})
    assert provider(vendor).send_sms(sms(), CONFIG) == Accepted("12345", {"cost": 1})


def test_a_retry_may_bring_a_new_reference() -> None:
    vendor = Vendor()
    assert provider(vendor).retry_sms(sms(ref="r0"), CONFIG).ref == "r1"


def test_a_retry_of_what_was_never_accepted_is_a_send() -> None:
    vendor = Vendor()
    provider(vendor).retry_sms(sms(), CONFIG)
    assert vendor.paths == ["/p/sms/send/"]


@pytest.mark.parametrize(
    "data",
    [None, {}, [], "r1", {"msg_uuid": None}, {"msg_uuid": ""}, {"msg_uuid": "a\r\nb"},
     {"msg_uuid": "x" * 10_000}, {"msg_uuid": {"a": 1}}, {"msg_uuid": True}],
)  # fmt: skip
def test_success_without_a_usable_reference_is_unknown(data: Any) -> None:
    vendor = Vendor(answer={"success": True, "data": data})
    with pytest.raises(OutcomeUnknown, match="msg_uuid"):
        provider(vendor).send_sms(sms(), CONFIG)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>OK</html>", b"{}", b"[]", b"null", b"[" * 200_000, b'{"success": NaN}',
     b'\xef\xbb\xbf{"success": true}', b'{"success": true, "success": false}',
     b'{"success": "true"}'],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_2xx_that_is_not_the_contract_is_unknown(body: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        provider(Vendor(answer=httpx.Response(200, content=body))).send_sms(sms(), CONFIG)


def test_2xx_that_says_no_is_refused_with_its_reason() -> None:
    vendor = Vendor(answer={"success": False, "msg": "no such\nsender", "code": 21})
    with pytest.raises(Refused, match="no such sender") as caught:
        provider(vendor).send_sms(sms(), CONFIG)
    assert caught.value.code == "21"


@pytest.mark.parametrize(
    ("word", "outcome"),
    [("not_sent", NotSent), ("unknown", OutcomeUnknown), ("rejected", Refused), (7, Refused)],
)
def test_an_outcome_in_the_envelope_is_believed(word: Any, outcome: type[Exception]) -> None:
    vendor = Vendor(answer={"success": False, "msg": "x", "outcome": word, "retry_after": 9})
    with pytest.raises(outcome) as caught:
        provider(vendor).send_sms(sms(), CONFIG)
    assert type(caught.value) is outcome
    assert getattr(caught.value, "retry_after", 9) == 9


@pytest.mark.parametrize(
    ("said", "opted_out"), [(True, True), (False, False), ("true", False), (1, False)]
)
@pytest.mark.parametrize("status", [200, 403, 422])
def test_only_a_plain_true_is_an_opt_out(status: int, said: Any, opted_out: bool) -> None:
    answer = httpx.Response(status, json={"success": False, "msg": "no", "opted_out": said})
    with pytest.raises(Refused) as caught:
        provider(Vendor(answer=answer)).send_sms(sms(), CONFIG)
    assert caught.value.opted_out is opted_out


@pytest.mark.parametrize(
    ("status", "outcome"), [(422, Refused), (429, NotSent), (500, OutcomeUnknown)]
)
def test_a_status_is_understood_and_its_reason_quoted(
    status: int, outcome: type[Exception]
) -> None:
    answer = httpx.Response(status, json={"success": False, "msg": "for a reason"})
    with pytest.raises(outcome, match=f"{status}: for a reason"):
        provider(Vendor(answer=answer)).send_sms(sms(), CONFIG)


@pytest.mark.parametrize("status", [200, 401, 500])
def test_a_secret_that_the_provider_echoes_is_masked(status: int) -> None:
    answer = httpx.Response(status, json={"success": False, "msg": "x" * 195 + "CANARY_9f81"})
    with pytest.raises((Refused, OutcomeUnknown)) as caught:
        provider(Vendor(answer=answer)).send_sms(sms(), CONFIG)
    assert "CANARY" not in str(caught.value)


def test_bulk_results_come_in_order() -> None:
    results = [
        {"success": True, "msg_uuid": "r1", "extra_data": {"a": 1}},
        {"success": False, "msg": "slow down", "outcome": "not_sent", "retry_after": 3},
        {"success": False, "msg": "no", "outcome": "rejected"},
        {"success": False, "msg": "?", "outcome": "unknown"},
        {"success": True},
        "nonsense",
    ]
    vendor = Vendor(answer={"success": True, "data": results}, manifest=MANIFEST)
    got = provider(vendor).send_sms_bulk([sms(f"k{n}") for n in range(6)], CONFIG)
    assert got[0] == Accepted("r1", {"a": 1})
    kinds = [type(one) for one in got[1:]]
    assert kinds == [NotSent, Refused, OutcomeUnknown, OutcomeUnknown, OutcomeUnknown]
    assert isinstance(got[1], NotSent)
    assert got[1].retry_after == 3
    assert vendor.paths == ["/p/sms/send/bulk/"]
    assert vendor.bodies[0]["config"] == CONFIG
    assert vendor.bodies[0]["messages"][1] == {
        "msg": "Hello World",
        "destination": NUMBER,
        "idempotency_key": "k1",
    }


@pytest.mark.parametrize("data", [None, {}, [], [{"success": True, "msg_uuid": "a"}] * 3])
def test_bulk_results_of_another_number_are_unknown(data: Any) -> None:
    vendor = Vendor(answer={"success": True, "data": data})
    with pytest.raises(OutcomeUnknown, match="2 results"):
        provider(vendor).send_sms_bulk([sms("a"), sms("b")], CONFIG)


def test_reports_of_other_messages_and_unknown_words_are_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = [
        {"msg_uuid": "r1", "status": "DELIVERED", "occurred_at": "2026-01-02T03:04:05+00:00"},
        {"msg_uuid": "r2", "status": "teleported"},
        {"msg_uuid": "stranger", "status": "delivered"},
        {"msg_uuid": 3, "status": "failed", "detail": "busy", "code": 17, "event_id": "e1"},
        {"msg_uuid": "r1"},
        None,
    ]
    vendor = Vendor(answer={"success": True, "data": data})
    with caplog.at_level(logging.WARNING):
        got = provider(vendor).sms_reports(["r1", "r2", "3"], CONFIG)
    assert [(one.ref, one.status) for one in got] == [("r1", "delivered"), ("3", "undelivered")]
    assert got[0].occurred_at is not None
    assert (got[1].detail, got[1].code, got[1].event_id) == ("busy", "17", "e1")
    assert "teleported" in caplog.text
    assert len(caplog.records) == 4


def test_many_references_are_asked_for_in_several_requests() -> None:
    vendor = Vendor(answer={"success": True, "data": []})
    provider(vendor).sms_reports([f"r{n}" for n in range(1001)], CONFIG)
    assert [len(body["msg_uuids"]) for body in vendor.bodies] == [500, 500, 1]


def test_a_report_answer_without_a_list_is_an_error() -> None:
    with pytest.raises(OutcomeUnknown, match="list of reports"):
        provider(Vendor(answer={"success": True, "data": {}})).sms_reports(["r1"], CONFIG)


def test_a_manifest_says_what_the_provider_can() -> None:
    schema = {"type": "object"}
    vendor = Vendor(
        manifest={
            **MANIFEST,
            "label": "Acme",
            "config_schema": schema,
            "idempotency_window": 600,
            "report_after": 5,
            "bulk_limit": 50,
            "unheard_of": 1,
        }
    )
    remote = provider(vendor)
    said = Capabilities(
        label="Acme",
        types=("sms",),
        features=frozenset({"stateless", "bulk"}),
        config_schema=schema,
        idempotency_window=600,
        report_after=5,
        bulk_limit=50,
    )
    assert remote.learn() == remote.learn() == remote.capabilities == said
    assert vendor.manifest_reads == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404),
        httpx.Response(405),
        httpx.Response(401, json=MANIFEST),
        httpx.Response(302, headers={"Location": "/login"}),
        httpx.Response(200, html="<html>welcome</html>"),
        httpx.Response(200, json={"hello": "world"}),
        httpx.Response(200, json=["sms"]),
        httpx.Response(200, json={**MANIFEST, "features": "bulk"}),
        httpx.Response(200, content=b"[" * 200_000),
    ],
)
def test_no_manifest_is_remembered_too(answer: httpx.Response) -> None:
    vendor = Vendor(manifest=answer)
    remote = provider(vendor)
    assert remote.learn() == remote.learn() == Capabilities(label=remote.name)
    assert vendor.manifest_reads == 1


@pytest.mark.parametrize("trouble", [httpx.Response(503), httpx.ReadTimeout("slow")])
def test_a_provider_that_could_not_answer_is_not_asked_again_at_once(trouble: Any) -> None:
    vendor = Vendor(manifest=trouble)
    remote = provider(vendor)
    assert remote.learn() == remote.learn() == Capabilities(label=remote.name, known=False)
    assert vendor.manifest_reads == 1


def test_a_provider_that_could_not_be_reached_is_asked_again_before_a_retry() -> None:
    vendor = Vendor(manifest=httpx.ConnectError("down"))
    remote = provider(vendor)
    assert not remote.learn().known
    vendor.manifest = MANIFEST
    remote.retry_sms(sms(ref="r1"), CONFIG)
    assert vendor.bodies[0]["config"] == CONFIG


def test_a_manifest_outlives_a_failure_to_read_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = Vendor(manifest=MANIFEST)
    remote = provider(vendor)
    assert "bulk" in remote.learn().features
    vendor.manifest = httpx.ConnectError("down")
    later = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    remote.learn()
    assert vendor.manifest_reads == 2
    assert "bulk" in remote.capabilities.features


def test_an_old_manifest_is_read_again_beside_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vendor = Vendor(manifest=MANIFEST)
    remote = provider(vendor)
    assert remote.learn().features == {"stateless", "bulk"}
    vendor.manifest = {**MANIFEST, "features": []}
    later = time.monotonic() + 3600
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: later)
        remote.send_sms(sms(), CONFIG)
        # The clock stands still here: count instead.
        for _ in range(6000):
            if not remote.capabilities.features:
                break
            time.sleep(0.01)
        assert remote.capabilities.features == frozenset()


def test_what_a_provider_can_is_known_once_it_was_reached() -> None:
    vendor = Vendor(manifest=httpx.ConnectError("down"))
    remote = provider(vendor)
    assert not remote.learn().known
    vendor.manifest = None
    remote.retry_sms(sms(ref="r1"), CONFIG)
    assert remote.capabilities.known


def test_one_that_keeps_silent_three_times_is_known_to_have_no_manifest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = provider(Vendor(manifest=httpx.ReadTimeout("slow")))
    known, begun = [], time.monotonic()
    for hour in range(3):
        monkeypatch.setattr(time, "monotonic", lambda hour=hour: begun + 3600 * hour)
        known.append(remote.learn().known)
    assert known == [False, False, True]


def test_no_attribute_of_a_provider_makes_a_request() -> None:
    asked: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        asked.append(request_of(connection))
        connection.sendall(answer("404 Not Found"))

    with server(behave) as url:
        remote = RemoteProvider("acme", url)
        for one in (remote, StandIn(remote), Simulator(), SMTP()):
            for name in dir(one):
                getattr(one, name)
        assert remote.capabilities == Capabilities(label="acme", known=False)
        assert asked == []
        assert remote.learn() == Capabilities(label="acme")
        assert len(asked) == 1


def test_what_an_author_declares_are_the_providers_capabilities() -> None:
    class Acme(Provider):
        name = "acme"
        label = "Acme"
        types = ["sms", "email"]
        features = frozenset({"bulk"})
        bulk_limit = 7

    declared = Capabilities("Acme", ("sms", "email"), frozenset({"bulk"}), bulk_limit=7)
    assert Acme().capabilities == Acme().learn() == declared


def test_many_threads_read_the_manifest_once() -> None:
    vendor = Vendor(manifest=MANIFEST)
    gate = threading.Barrier(8)
    remote = provider(vendor)

    def look(_: int) -> frozenset[str]:
        gate.wait(60)
        return remote.learn().features

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(look, range(8))) == {frozenset(MANIFEST["features"])}
    assert vendor.manifest_reads == 1


def test_a_provider_that_is_down_is_not_sent_and_has_no_features() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    remote = RemoteProvider("acme", f"http://127.0.0.1:{port}")
    calls: list[Callable[[], Any]] = [
        lambda: remote.send_sms(sms(), CONFIG),
        lambda: remote.retry_sms(sms(ref="r1"), CONFIG),
        lambda: remote.sms_reports(["r1"], CONFIG),
    ]
    for call in calls:
        with pytest.raises(NotSent):
            call()
    assert remote.capabilities.features == frozenset()


def test_a_remote_provider_is_a_provider() -> None:
    assert isinstance(provider(Vendor()), Provider)
