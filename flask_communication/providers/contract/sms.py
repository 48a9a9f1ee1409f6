"""The HTTP contract between the core and its providers: bodies, envelopes, words, signatures.

Both ends use this module: :mod:`.remote` writes the requests and reads the answers,
:mod:`.blueprint` the other way round. Both read leniently (fields nobody knows are ignored, so
that either end can be the newer one); only what is written to a provider without a manifest is
exact: the keys of the seed and not one more, because strict third-party schemas refuse others.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from ...errors import SettingError
from ...storage.models.status import DELIVERED, READ, SENT, UNDELIVERED

SEND = "sms/send/"
RETRY = "sms/retry/"
REPORT = "sms/delivery_report/"
BULK = "sms/send/bulk/"

STATELESS = "stateless"
BULK_FEATURE = "bulk"
# What one bulk call may carry, and one report call may ask.
MOST_MESSAGES = 1000
# The width of our column for a provider's id of a message.
LONGEST_REF = 255
# Standard Webhooks asks for a window; five minutes is what its own libraries use.
SIGNATURE_WINDOW = 300
_LONGEST_WINDOW = 30 * 86400

_WORDS = {
    SENT: "sent queued held sending unknown pending accepted submitted scheduled processing "
    "in_progress in_transit enroute acceptd",
    DELIVERED: "delivered delivrd",
    READ: "read seen",
    UNDELIVERED: "undelivered undeliverable undeliv failed failure rejected rejectd expired "
    "cancelled canceled deleted blocked",
}
# What a provider may say of a message -> our status. The short ones are SMPP 3.4, appendix B.
REPORT_WORDS = {word: status for status, words in _WORDS.items() for word in words.split()}


def status_of(word: str) -> str | None:
    """Translate a report's word, in any case, to our status; None for a word nobody knows."""
    return REPORT_WORDS.get(word.strip().lower().replace("-", "_").replace(" ", "_"))


class _Lenient(Schema):
    class Meta:
        unknown = EXCLUDE


class Ref(fields.String):
    """A provider's id of a message: a string or whole number, 1 to 255 printable characters."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if not 1 <= len(text) <= LONGEST_REF or not text.isprintable() or text.isspace():
            raise ValidationError(f"Must be 1 to {LONGEST_REF} printable characters.")
        return text


def _config() -> fields.Dict:
    return fields.Dict(keys=fields.String(), load_default=dict)


class SendBody(_Lenient):
    """``sms/send/``: the seed's body; a missing ``config`` reads as an empty one."""

    msg = fields.String(required=True)
    destination = fields.String(required=True, validate=validate.Length(min=1))
    config = _config()


class RetryBody(_Lenient):
    """``sms/retry/``: the seed's ``msg_uuid``, and for a stateless provider all it needs."""

    msg_uuid = Ref(required=True)
    msg = fields.String(load_default=None)
    destination = fields.String(load_default=None)
    config = _config()


class ReportBody(_Lenient):
    """``sms/delivery_report/``: the seed's ``msg_uuids``, and for a stateless provider config."""

    msg_uuids = fields.List(Ref(), required=True, validate=validate.Length(max=MOST_MESSAGES))
    config = _config()


class BulkMessage(_Lenient):
    """One message of a bulk body."""

    msg = fields.String(required=True)
    destination = fields.String(required=True, validate=validate.Length(min=1))
    idempotency_key = Ref(required=True)


class BulkBody(_Lenient):
    """``sms/send/bulk/``: up to 1,000 messages of one config."""

    messages = fields.List(
        fields.Nested(BulkMessage),
        required=True,
        validate=validate.Length(min=1, max=MOST_MESSAGES),
    )
    config = _config()


class Manifest(_Lenient):
    """``GET <root>/``: what a provider is and what it can do; times are in seconds."""

    name = fields.String(required=True, validate=validate.Length(min=1, max=255))
    types = fields.List(fields.String(), required=True)
    label = fields.String(load_default="")
    features = fields.List(fields.String(), load_default=list)
    config_schema = fields.Dict(load_default=None, allow_none=True)
    idempotency_window = fields.Float(
        load_default=0.0, validate=validate.Range(min=0, max=_LONGEST_WINDOW)
    )
    report_after = fields.Float(
        load_default=60.0, validate=validate.Range(min=0, max=_LONGEST_WINDOW)
    )
    bulk_limit = fields.Integer(load_default=500, validate=validate.Range(min=1, max=MOST_MESSAGES))


class Acceptance(_Lenient):
    """The ``data`` of an accepted send."""

    msg_uuid = Ref(required=True)
    extra_data = fields.Raw(load_default=None, allow_none=True)


class Envelope(_Lenient):
    """What every answer has in common; the rest, from ``outcome`` on, is ours."""

    success = fields.Boolean(required=True, truthy={True}, falsy={False})
    msg = fields.Raw(load_default=None, allow_none=True)
    data = fields.Raw(load_default=None, allow_none=True)
    outcome = fields.Raw(load_default=None, allow_none=True)
    only_this = fields.Raw(load_default=None, allow_none=True)
    retry_after = fields.Raw(load_default=None, allow_none=True)
    code = fields.Raw(load_default=None, allow_none=True)
    opted_out = fields.Raw(load_default=None, allow_none=True)


class BulkResult(Envelope):
    """One result of a bulk call, in the order of its messages."""

    msg_uuid = fields.Raw(load_default=None, allow_none=True)
    extra_data = fields.Raw(load_default=None, allow_none=True)


class ReportItem(_Lenient):
    """One report: the seed's two fields, and what more a provider may know."""

    msg_uuid = Ref(required=True)
    status = fields.String(required=True)
    detail = fields.Raw(load_default=None, allow_none=True)
    code = fields.Raw(load_default=None, allow_none=True)
    recipient = fields.Raw(load_default=None, allow_none=True)
    event_id = fields.Raw(load_default=None, allow_none=True)
    occurred_at = fields.Raw(load_default=None, allow_none=True)
    opted_out = fields.Raw(load_default=None, allow_none=True)


def send_body(msg: str, destination: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seed's body of ``sms/send/``."""
    return {"msg": msg, "destination": destination, "config": dict(config)}


def retry_body(
    ref: str, msg: str, destination: str, config: Mapping[str, Any], *, stateless: bool
) -> dict[str, Any]:
    """Return the body of ``sms/retry/``: the seed's, unless the provider asked for more."""
    more = send_body(msg, destination, config) if stateless else {}
    return {"msg_uuid": ref, **more}


def report_body(
    refs: Sequence[str], config: Mapping[str, Any], *, stateless: bool
) -> dict[str, Any]:
    """Return the body of ``sms/delivery_report/``: the seed's, unless more was asked for."""
    more = {"config": dict(config)} if stateless else {}
    return {"msg_uuids": list(refs), **more}


def signature_key(secret: str) -> bytes:
    """Turn a written secret into a key: base64 after ``whsec_``, else the characters themselves.

    Raises :class:`SettingError` for one that is empty or not base64.
    """
    encoded = secret.removeprefix("whsec_")
    try:
        key = secret.encode() if encoded == secret else base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise SettingError("a provider's secret must not be empty, and base64 after whsec_")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the Standard Webhooks signature ``v1,<base64 of HMAC-SHA256>`` of a body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def signature_headers(key: bytes, message_id: str, body: bytes) -> dict[str, str]:
    """Return the three headers that sign ``body`` now."""
    now = int(time.time())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(key, message_id, now, body),
    }


def is_signed(
    keys: Sequence[bytes], body: bytes, *, message_id: str, timestamp: str, signatures: str
) -> bool:
    """Tell whether one of ``keys`` signed these bytes within the last (or next) five minutes.

    The three strings are the values of the ``webhook-*`` headers, "" for an absent one.
    """
    if not message_id or not (timestamp.isascii() and timestamp.isdecimal()):
        return False
    if len(timestamp) > 12 or abs(time.time() - int(timestamp)) > SIGNATURE_WINDOW:
        return False
    given = signatures.encode("utf-8", "replace").split()
    wanted = [sign(key, message_id, int(timestamp), body).encode() for key in keys]
    return any(hmac.compare_digest(one, right) for one in given[:10] for right in wanted)
