"""A provider is served over the contract, and read back by its client."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from flask_communication.errors import (
    Denied,
    NotSent,
    OutcomeUnknown,
    ProviderError,
    Refused,
    SettingError,
)
from flask_communication.providers.base import Accepted, OutboundSMS, Provider, Report
from flask_communication.providers.blueprint import provider_blueprint
from flask_communication.providers.contract import signatures
from flask_communication.providers.net.in_process import INTERNAL
from flask_communication.providers.remote import RemoteProvider
from flask_communication.providers.simulator import Simulator
from tests.support.seed_provider import served

pytestmark = pytest.mark.usefixtures("any_address")

NUMBER = "+919999911111"
SECRET = "whsec_c2VjcmV0"
CONFIG = {"authkey": "CANARY_9f81"}
SEND = {"msg": "Hello World", "destination": NUMBER, "config": CONFIG}


@dataclass
class Parrot(Provider):
    """Does what it is told to, and remembers what it was given."""

    name = "parrot"
    types = ("sms", "telegraph")
    features = frozenset({"bulk", "swallow"})
    idempotency_window = 30
    report_after = 7
    bulk_limit = 3
    config_schema = {"type": "object"}
    does: Any = field(default_factory=lambda: Accepted("r1", {"cost": 1}))
    heard: list[tuple[Any, Mapping[str, Any]]] = field(default_factory=list)

    def do(self, subject: Any, config: Mapping[str, Any]) -> Any:
        self.heard.append((subject, config))
        if isinstance(self.does, Exception):
            raise self.does
        return self.does

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        result: Accepted = self.do(sms, config)
        return result

    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        results: Sequence[Accepted | ProviderError] = self.do(batch, config)
        return results

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        reports: Sequence[Report] = self.do(refs, config)
        return reports


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def client(parrot: Parrot) -> FlaskClient:
    return app_of(parrot, unsigned=True).test_client()


def app_of(provider: Provider, **options: Any) -> Flask:
    app = Flask("host", root_path="/")
    app.register_blueprint(provider_blueprint(provider, **options))
    return app


@pytest.fixture
def remote(parrot: Parrot) -> Iterator[RemoteProvider]:
    with served(app_of(parrot, secret=SECRET)) as url:
        yield RemoteProvider("parrot", url + "/parrot", SECRET)


def sms(key: str = "k1", ref: str | None = None) -> OutboundSMS:
    return OutboundSMS(key, NUMBER, "Hello World", provider_ref=ref)


def test_an_acceptance_is_answered_as_in_the_seed(client: FlaskClient) -> None:
    answer = client.post("/parrot/sms/send/", json=SEND)
    assert answer.status_code == 200
    assert answer.json == {
        "success": True,
        "msg": "Successfully queued",
        "data": {"msg_uuid": "r1", "extra_data": {"cost": 1}},
    }


def test_a_retry_is_answered_as_in_the_seed(client: FlaskClient) -> None:
    answer = client.post("/parrot/sms/retry/", json={**SEND, "msg_uuid": "r1"})
    assert answer.json == {"success": True, "msg": "Successfully queued"}


def test_a_report_is_answered_as_in_the_seed(client: FlaskClient, parrot: Parrot) -> None:
    parrot.does = [Report("r1", "delivered")]
    answer = client.post("/parrot/sms/delivery_report/", json={"msg_uuids": ["r1"]})
    assert answer.json == {"success": True, "data": [{"msg_uuid": "r1", "status": "delivered"}]}
    assert parrot.heard == [(["r1"], {})]


def test_the_message_its_key_and_its_configuration_arrive(
    client: FlaskClient, parrot: Parrot
) -> None:
    client.post("/parrot/sms/send/", json=SEND, headers={"Idempotency-Key": "k1"})
    assert parrot.heard == [(OutboundSMS("k1", NUMBER, "Hello World"), CONFIG)]


@pytest.mark.parametrize("path", ["sms/send", "sms/retry", "sms/delivery_report", "sms/send/bulk"])
def test_a_path_works_with_and_without_its_trailing_slash(client: FlaskClient, path: str) -> None:
    statuses = {client.post(f"/parrot/{path}{end}", json={}).status_code for end in ("", "/")}
    assert statuses == {422}
    assert client.get("/parrot").json == client.get("/parrot/").json


def test_the_manifest_says_what_is_served(client: FlaskClient) -> None:
    assert client.get("/parrot/").json == {
        "name": "parrot",
        "label": "parrot",
        "types": ["sms"],
        "features": ["bulk", "stateless"],
        "config_schema": {"type": "object"},
        "idempotency_window": 30,
        "report_after": 7,
        "bulk_limit": 3,
    }


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (NotSent("come back later"), 503),
        (Refused("no such sender"), 422),
        (OutcomeUnknown("line dead"), 502),
        (ProviderError("something"), 502),
    ],
)
def test_each_outcome_has_its_status(
    client: FlaskClient, parrot: Parrot, raised: ProviderError, status: int
) -> None:
    parrot.does = raised
    answer = client.post("/parrot/sms/send/", json=SEND)
    assert answer.status_code == status
    assert answer.json == {"success": False, "msg": raised.reason}
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_the_seconds_of_not_sent_become_retry_after(client: FlaskClient, parrot: Parrot) -> None:
    parrot.does = NotSent("later", retry_after=7.2)
    assert client.post("/parrot/sms/send/", json=SEND).headers["Retry-After"] == "8"


def test_a_provider_that_breaks_is_unknown_and_its_words_stay_inside(
    client: FlaskClient, parrot: Parrot, caplog: pytest.LogCaptureFixture
) -> None:
    parrot.does = KeyError("CANARY_9f81")
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/parrot/sms/send/", json=SEND)
    assert answer.status_code == 502
    assert "KeyError" in caplog.text
    assert "CANARY" not in caplog.text + answer.text


def test_a_secret_in_a_providers_reason_is_masked(client: FlaskClient, parrot: Parrot) -> None:
    parrot.does = Refused("key CANARY_9f81 is wrong")
    assert client.post("/parrot/sms/send/", json=SEND).get_json()["msg"] == "key ******** is wrong"


def test_a_provider_that_returns_nothing_is_unknown(client: FlaskClient, parrot: Parrot) -> None:
    parrot.does = None
    assert client.post("/parrot/sms/send/", json=SEND).status_code == 502


def test_an_extra_that_is_no_json_does_not_hide_the_acceptance(
    client: FlaskClient, parrot: Parrot
) -> None:
    parrot.does = Accepted("r1", {"raw": object()})
    answer = client.post("/parrot/sms/send/", json=SEND)
    assert answer.get_json()["data"] == {"msg_uuid": "r1", "extra_data": {}}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 200_000, 400),
        (b'{"a":' * 200_000, 413),
        (b'{"msg": NaN}', 400),
        (b'{"msg": "\\u0000", "destination": "+1"}', 400),
        (b'{"msg": "\\ud800", "destination": "+1"}', 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"x"', 422),
        (b"{}", 422),
        (b'{"msg": 1, "destination": []}', 422),
        (b'{"msg": "x", "destination": "+1", "config": 7}', 422),
    ],
    ids=lambda value: repr(value)[:24],
)
@pytest.mark.parametrize("path", ["send", "retry", "delivery_report", "send/bulk"])
def test_a_bad_body_is_answered_in_the_envelope(
    client: FlaskClient, path: str, body: bytes, status: int
) -> None:
    answer = client.post(f"/parrot/sms/{path}/", data=body, content_type="application/json")
    assert answer.get_json()["success"] is False
    # A bulk body may be larger.
    assert answer.status_code == (400 if status == 413 and path == "send/bulk" else status)


def test_a_refusal_names_the_fields(client: FlaskClient) -> None:
    answer = client.post("/parrot/sms/send/", json={"msg": "x"})
    assert answer.get_json()["errors"] == {"destination": ["Missing data for required field."]}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_what_a_web_page_could_post_elsewhere_is_not_read(
    client: FlaskClient, parrot: Parrot, kind: str | None
) -> None:
    answer = client.post("/parrot/sms/send/", data=json.dumps(SEND), content_type=kind)
    assert answer.status_code == 415
    assert parrot.heard == []


def test_a_body_over_the_cap_is_refused_unread(client: FlaskClient) -> None:
    answer = client.post("/parrot/sms/send/", json={**SEND, "msg": "x" * 300_000})
    assert answer.status_code == 413
    assert answer.get_json()["success"] is False


def test_the_hosts_own_limit_is_answered_in_the_envelope(parrot: Parrot) -> None:
    app = app_of(parrot, unsigned=True)
    app.config["MAX_CONTENT_LENGTH"] = 10
    answer = app.test_client().post("/parrot/sms/send/", json=SEND)
    assert (answer.status_code, answer.get_json()["success"]) == (413, False)


def test_a_body_the_host_has_read_already_is_still_there(parrot: Parrot) -> None:
    app = app_of(parrot, secret=SECRET)
    app.before_request(lambda: request.get_json() and None)
    with served(app) as url:
        remote = RemoteProvider("parrot", url + "/parrot", SECRET)
        assert remote.send_sms(sms(), CONFIG).ref == "r1"


def test_without_a_secret_a_provider_is_closed(parrot: Parrot) -> None:
    client = app_of(parrot).test_client()
    paths = ("send", "retry", "delivery_report", "send/bulk")
    for path in paths:
        answer = client.post(f"/parrot/sms/{path}/", json=SEND)
        assert answer.status_code == 401
        assert "unsigned=True" in answer.get_json()["msg"]
    assert parrot.heard == []
    assert client.get("/parrot/").status_code == 200


def test_a_request_from_inside_the_application_is_accepted(parrot: Parrot) -> None:
    client = app_of(parrot).test_client()
    inside = client.post("/parrot/sms/send/", json=SEND, environ_base={INTERNAL: True})
    assert inside.status_code == 200
    forged = {INTERNAL: "true", INTERNAL.upper().replace(".", "_"): "1"}
    assert client.post("/parrot/sms/send/", json=SEND, headers=forged).status_code == 401


def test_a_signed_request_is_accepted(parrot: Parrot) -> None:
    client = app_of(parrot, secret=["another", SECRET]).test_client()
    body = json.dumps(SEND).encode()
    headers = signatures.signature_headers(b"secret", "m1", body)
    answer = client.post(
        "/parrot/sms/send/", data=body, headers=headers, content_type="application/json"
    )
    assert answer.status_code == 200
    assert parrot.heard[0][0].key == "m1"


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-signature": ""},
        {"webhook-signature": "garbage"},
        {"webhook-signature": "v1,\u00e9"},
        {"webhook-id": "m2"},
        {"webhook-timestamp": "1"},
        {"webhook-timestamp": str(int(time.time()) + 360)},
        {"webhook-timestamp": "now"},
    ],
)
def test_a_request_signed_wrongly_is_refused(parrot: Parrot, change: dict[str, str]) -> None:
    client = app_of(parrot, secret=SECRET).test_client()
    body = json.dumps(SEND).encode()
    headers = {**signatures.signature_headers(b"secret", "m1", body), **change}
    answer = client.post(
        "/parrot/sms/send/", data=body, headers=headers, content_type="application/json"
    )
    assert answer.status_code == 401
    assert answer.get_json()["success"] is False
    assert parrot.heard == []


def test_an_unusable_secret_is_a_wrong_setting() -> None:
    with pytest.raises(SettingError):
        provider_blueprint(Simulator(), secret="")


def test_a_seed_only_retry_of_a_provider_that_keeps_nothing_says_what_to_send(
    client: FlaskClient, parrot: Parrot
) -> None:
    answer = client.post("/parrot/sms/retry/", json={"msg_uuid": "r1"})
    assert answer.status_code == 422
    assert "msg, destination and config" in answer.get_json()["msg"]
    assert parrot.heard == []


def test_a_seed_only_retry_works_where_the_provider_knows_the_message() -> None:
    client = app_of(Simulator(), unsigned=True).test_client()
    sent = client.post("/simulator/sms/send/", json=SEND).get_json()["data"]["msg_uuid"]
    answer = client.post("/simulator/sms/retry/", json={"msg_uuid": sent})
    assert answer.get_json()["success"] is True
    assert answer.get_json()["data"]["msg_uuid"] != sent


def test_a_provider_without_bulk_answers_404() -> None:
    class Single(Parrot):
        features = frozenset()

    answer = app_of(Single(), unsigned=True).test_client().post("/parrot/sms/send/bulk/", json={})
    assert (answer.status_code, answer.get_json()["success"]) == (404, False)


def test_a_batch_over_the_limit_is_refused_whole(client: FlaskClient, parrot: Parrot) -> None:
    one = {"msg": "x", "destination": NUMBER, "idempotency_key": "k"}
    answer = client.post("/parrot/sms/send/bulk/", json={"messages": [one] * 4})
    assert answer.status_code == 422
    assert parrot.heard == []


def test_a_signed_message_arrives_whole(remote: RemoteProvider, parrot: Parrot) -> None:
    assert remote.send_sms(sms(), CONFIG) == Accepted("r1", {"cost": 1})
    assert parrot.heard == [(sms(), CONFIG)]


def test_a_stateless_retry_arrives_whole(remote: RemoteProvider, parrot: Parrot) -> None:
    parrot.does = Accepted("r2")
    assert remote.retry_sms(sms(ref="r1"), CONFIG).ref == "r2"
    assert parrot.heard == [(sms(ref="r1"), CONFIG)]


def test_reports_arrive_with_all_that_is_known(remote: RemoteProvider, parrot: Parrot) -> None:
    full = Report("r1", "undelivered", "busy", "17", "e1", datetime(2026, 1, 2, tzinfo=UTC))
    parrot.does = [full, Report("r2", "read")]
    assert list(remote.sms_reports(["r1", "r2"], CONFIG)) == [full, Report("r2", "read")]
    assert parrot.heard == [(["r1", "r2"], CONFIG)]


def test_a_batch_arrives_whole_and_each_result_returns(
    remote: RemoteProvider, parrot: Parrot
) -> None:
    parrot.does = [Accepted("r1", {"a": 1}), NotSent("later", retry_after=3), Refused("no")]
    batch = [sms("k1"), sms("k2"), sms("k3")]
    first, second, third = remote.send_sms_bulk(batch, CONFIG)
    assert first == Accepted("r1", {"a": 1})
    assert isinstance(second, NotSent)
    assert second.retry_after == 3
    assert type(third) is Refused
    assert parrot.heard == [(batch, CONFIG)]


def test_a_batch_with_too_few_results_is_unknown(remote: RemoteProvider, parrot: Parrot) -> None:
    parrot.does = [Accepted("r1")]
    with pytest.raises(OutcomeUnknown):
        remote.send_sms_bulk([sms("k1"), sms("k2")], CONFIG)


def test_what_is_no_result_of_a_batch_is_unknown(remote: RemoteProvider, parrot: Parrot) -> None:
    parrot.does = ["r1", OutcomeUnknown("dead")]
    results = remote.send_sms_bulk([sms("k1"), sms("k2")], CONFIG)
    assert [type(one) for one in results] == [OutcomeUnknown, OutcomeUnknown]


@pytest.mark.parametrize(
    "raised", [NotSent("a", retry_after=9), Refused("b"), OutcomeUnknown("c"), RuntimeError("d")]
)
def test_an_outcome_survives_the_journey(
    remote: RemoteProvider, parrot: Parrot, raised: Exception
) -> None:
    parrot.does = raised
    wanted = type(raised) if isinstance(raised, ProviderError) else OutcomeUnknown
    with pytest.raises(wanted) as caught:
        remote.send_sms(sms(), CONFIG)
    assert type(caught.value) is wanted
    assert getattr(caught.value, "retry_after", None) == getattr(raised, "retry_after", None)


def test_the_manifest_survives_the_journey(remote: RemoteProvider) -> None:
    can = remote.learn()
    assert can.features == {"bulk", "stateless"}
    assert (can.types, can.bulk_limit, can.idempotency_window) == (("sms",), 3, 30)


def test_a_wrong_secret_is_refused_with_advice(parrot: Parrot) -> None:
    with served(app_of(parrot, secret=SECRET)) as url:
        stranger = RemoteProvider("parrot", url + "/parrot", "another")
        with pytest.raises(Refused, match="shared secret") as caught:
            stranger.send_sms(sms(), CONFIG)
    assert caught.value.http_status == 401


def test_a_provider_may_be_served_under_another_name() -> None:
    app = app_of(Simulator(), name="rehearsal", unsigned=True)
    assert app.test_client().post("/rehearsal/sms/send/", json=SEND).status_code == 200


@pytest.mark.parametrize("said", [Denied("no balance"), Refused("wrong key", http_status=401)])
def test_who_denies_us_denies_us_at_the_other_end_too(
    remote: RemoteProvider, parrot: Parrot, said: Refused
) -> None:
    parrot.does = said
    with pytest.raises(Refused) as caught:
        remote.send_sms(sms(), CONFIG)
    parrot.does = [Refused("no such number", http_status=400), said]
    number, us = remote.send_sms_bulk([sms("k1"), sms("k2")], CONFIG)
    assert isinstance(number, Refused)
    assert isinstance(us, Refused)
    assert (caught.value.denies_us, number.denies_us, us.denies_us) == (True, False, True)


def test_an_opt_out_survives_the_journey(remote: RemoteProvider, parrot: Parrot) -> None:
    for said in (Refused("STOP", opted_out=True), Refused("no such number")):
        parrot.does = said
        with pytest.raises(Refused) as caught:
            remote.send_sms(sms(), CONFIG)
        parrot.does = [Accepted("r1"), said]
        accepted, refused = remote.send_sms_bulk([sms("k1"), sms("k2")], CONFIG)
        assert isinstance(accepted, Accepted)
        assert isinstance(refused, Refused)
        assert caught.value.opted_out is refused.opted_out is said.opted_out
    parrot.does = [Report("r1", "undelivered", opted_out=True), Report("r2", "delivered")]
    assert [one.opted_out for one in remote.sms_reports(["r1", "r2"], CONFIG)] == [True, False]


def test_who_has_not_opted_out_is_not_said_to(client: FlaskClient, parrot: Parrot) -> None:
    parrot.does = Refused("no such number")
    answer = client.post("/parrot/sms/send/", json=SEND)
    assert answer.json == {"success": False, "msg": "no such number"}
