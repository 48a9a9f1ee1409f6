"""The contract: the seed's bodies to the byte, our additions, the words, the signature."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from marshmallow import Schema, ValidationError

from flask_communication.errors import SettingError
from flask_communication.formats.strict_json import encode_json
from flask_communication.providers.base import REPORT_STATUSES
from flask_communication.providers.contract import envelope, manifest, signatures, sms
from flask_communication.storage.models.status import REPORTED, STATUSES

CONFIG = {"config_key1": "value1"}
NUMBER = "+919999911111"


def signed(body: bytes, given: str, *, key: bytes = b"secret", at: str | None = None) -> bool:
    return signatures.is_signed(
        [key],
        body,
        message_id="m1",
        timestamp=str(int(time.time())) if at is None else at,
        signatures=given,
    )


def test_the_words_of_a_report_are_those_of_a_message() -> None:
    assert REPORT_STATUSES == REPORTED


def test_a_send_carries_exactly_the_seeds_keys() -> None:
    body = encode_json(sms.send_body("Hello World", NUMBER, CONFIG))
    assert body == (
        b'{"msg":"Hello World","destination":"+919999911111","config":{"config_key1":"value1"}}'
    )


def test_a_retry_carries_exactly_the_seeds_key() -> None:
    body = sms.retry_body("abdioioio-akdidui", "Hi", NUMBER, CONFIG, stateless=False)
    assert encode_json(body) == b'{"msg_uuid":"abdioioio-akdidui"}'


def test_a_report_request_carries_exactly_the_seeds_key() -> None:
    body = sms.report_body(["abdioioio-akdidui"], CONFIG, stateless=False)
    assert encode_json(body) == b'{"msg_uuids":["abdioioio-akdidui"]}'


def test_a_stateless_provider_gets_what_it_needs_with_every_request() -> None:
    retry = sms.retry_body("r1", "Hi", NUMBER, CONFIG, stateless=True)
    assert retry == {"msg_uuid": "r1", "msg": "Hi", "destination": NUMBER, "config": CONFIG}
    report = sms.report_body(["r1"], CONFIG, stateless=True)
    assert report == {"msg_uuids": ["r1"], "config": CONFIG}


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        (
            sms.SendBody,
            '{"msg": "Hello World", "destination": "+919999911111",'
            ' "config": {"config_key1": "value1", "config_key2": "value2"}}',
        ),
        (sms.RetryBody, '{"msg_uuid": "abdioioio-akdidui"}'),
        (sms.ReportBody, '{"msg_uuids": ["abdioioio-akdidui"]}'),
        (
            envelope.Envelope,
            '{"success": true, "msg": "Successfully queued",'
            ' "data": {"msg_uuid": "", "extra_data": {}}}',
        ),
        (envelope.Envelope, '{"success": true, "msg": "Successfully queued"}'),
        (envelope.Envelope, '{"success": true, "data": [{"msg_uuid": "", "status": "delivered"}]}'),
        (envelope.Acceptance, '{"msg_uuid": "abdioioio-akdidui", "extra_data": {}}'),
        (envelope.ReportItem, '{"msg_uuid": "abdioioio-akdidui", "status": "delivered"}'),
    ],
)
def test_every_example_of_the_seed_is_understood(schema: type[Schema], example: str) -> None:
    given = json.loads(example)
    loaded = schema().load(given)
    assert {name: loaded[name] for name in given} == given


def test_a_field_nobody_knows_is_ignored() -> None:
    given = {"msg": "Hi", "destination": NUMBER, "config": {}, "colour": "red"}
    assert "colour" not in sms.SendBody().load(given)


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        (sms.SendBody, {}),
        (sms.SendBody, []),
        (sms.SendBody, None),
        (sms.SendBody, {"msg": "Hi"}),
        (sms.SendBody, {"msg": 1, "destination": NUMBER}),
        (sms.SendBody, {"msg": "Hi", "destination": ""}),
        (sms.SendBody, {"msg": "Hi", "destination": NUMBER, "config": []}),
        (sms.SendBody, {"msg": "Hi", "destination": NUMBER, "config": None}),
        (sms.RetryBody, {"msg_uuid": None}),
        (sms.RetryBody, {"msg_uuid": ""}),
        (sms.ReportBody, {"msg_uuids": "r1"}),
        (sms.ReportBody, {"msg_uuids": [["r1"]]}),
        (sms.ReportBody, {"msg_uuids": ["r"] * 1001}),
        (sms.BulkBody, {"messages": []}),
        (sms.BulkBody, {"messages": [{"msg": "Hi", "destination": NUMBER}]}),
        (manifest.Manifest, {"name": "x"}),
        (manifest.Manifest, {"name": "", "types": ["sms"]}),
        (manifest.Manifest, {"name": "x", "types": ["sms"], "idempotency_window": -1}),
        (manifest.Manifest, {"name": "x", "types": ["sms"], "bulk_limit": 5000}),
        (envelope.Envelope, {"success": "yes"}),
        (envelope.Envelope, {"success": None}),
        (envelope.Envelope, {"msg": "Successfully queued"}),
    ],
)
def test_what_is_not_in_the_form_of_the_contract_is_refused(
    schema: type[Schema], given: Any
) -> None:
    with pytest.raises(ValidationError):
        schema().load(given)


@pytest.mark.parametrize("ref", ["a", "x" * 255, "<script>", "a b", 12345, 10**30])
def test_a_reference_is_any_printable_word_or_whole_number(ref: Any) -> None:
    assert envelope.Acceptance().load({"msg_uuid": ref})["msg_uuid"] == str(ref)


@pytest.mark.parametrize(
    "ref", [None, "", " ", "x" * 256, "a\r\nb", "a\0", "\u202eabc", True, {}, [], 1.5]
)
def test_a_reference_we_could_not_keep_is_refused(ref: Any) -> None:
    with pytest.raises(ValidationError):
        envelope.Acceptance().load({"msg_uuid": ref})


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("delivered", "delivered"),
        ("DELIVERED", "delivered"),
        (" Delivered ", "delivered"),
        ("DELIVRD", "delivered"),
        ("read", "read"),
        ("in-progress", "sent"),
        ("In Transit", "sent"),
        ("failed", "undelivered"),
        ("Canceled", "undelivered"),
        ("expired", "undelivered"),
        ("vanished", None),
        ("", None),
    ],
)
def test_a_word_of_a_report_means_one_of_our_statuses(word: str, status: str | None) -> None:
    assert envelope.status_of(word) == status


def test_every_status_of_ours_is_a_word_of_the_contract() -> None:
    # One deployment can be the provider of another, and then says its own statuses.
    outbound = STATUSES - {"received"}
    assert {envelope.status_of(status) for status in outbound} == REPORTED


def test_a_signature_is_the_one_of_standard_webhooks() -> None:
    # The example of the Standard Webhooks specification.
    key = signatures.signature_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert signatures.sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_what_was_signed_now_is_believed() -> None:
    headers = signatures.signature_headers(b"secret", "m1", b"body")
    assert signed(b"body", headers["webhook-signature"], at=headers["webhook-timestamp"])


def test_one_right_signature_among_several_is_enough() -> None:
    now = int(time.time())
    assert signed(b"body", f"v1,wrong v2,x {signatures.sign(b'secret', 'm1', now, b'body')}")


@pytest.mark.parametrize("minutes", [-6, 6, -1000000])
def test_an_old_or_future_signature_is_not_believed(minutes: int) -> None:
    at = int(time.time()) + minutes * 60
    assert not signed(b"body", signatures.sign(b"secret", "m1", at, b"body"), at=str(at))


@pytest.mark.parametrize("at", ["", "now", "1.5", "٣", "-1", "9" * 400])
def test_a_time_that_is_none_is_not_believed(at: str) -> None:
    assert not signed(b"body", "v1,x", at=at)


@pytest.mark.parametrize("signatures", ["", "garbage", "v1,", "v1,é\udc80", "v1," * 5000])
def test_garbage_is_not_believed(signatures: str) -> None:
    assert not signed(b"body", signatures)


def test_another_body_or_another_key_is_not_believed() -> None:
    signature = signatures.sign(b"secret", "m1", int(time.time()), b"body")
    assert not signed(b"other", signature)
    assert not signed(b"body", signature, key=b"another")


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!", "whsec_abc"])
def test_a_secret_that_cannot_be_used_is_a_wrong_setting(secret: str) -> None:
    with pytest.raises(SettingError, match="secret"):
        signatures.signature_key(secret)
