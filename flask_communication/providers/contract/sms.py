"""The HTTP contract for SMS: the bodies of its requests, written and read by both ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import fields, validate

from .envelope import Lenient, Ref

SEND = "sms/send/"
RETRY = "sms/retry/"
REPORT = "sms/delivery_report/"
BULK = "sms/send/bulk/"

# The most messages of one bulk request, and the most references of one report request.
MOST_MESSAGES = 1000


def _config() -> fields.Dict:
    return fields.Dict(keys=fields.String(), load_default=dict)


class SendBody(Lenient):
    """``sms/send/``: the seed's body; a missing ``config`` reads as an empty one."""

    msg = fields.String(required=True)
    destination = fields.String(required=True, validate=validate.Length(min=1))
    config = _config()


class RetryBody(Lenient):
    """``sms/retry/``: the seed's ``msg_uuid``, and for a stateless provider all it needs."""

    msg_uuid = Ref(required=True)
    msg = fields.String(load_default=None)
    destination = fields.String(load_default=None)
    config = _config()


class ReportBody(Lenient):
    """``sms/delivery_report/``: the seed's ``msg_uuids``, and for a stateless provider config."""

    msg_uuids = fields.List(Ref(), required=True, validate=validate.Length(max=MOST_MESSAGES))
    config = _config()


class BulkMessage(Lenient):
    """One message of a bulk body."""

    msg = fields.String(required=True)
    destination = fields.String(required=True, validate=validate.Length(min=1))
    idempotency_key = Ref(required=True)


class BulkBody(Lenient):
    """``sms/send/bulk/``: up to 1,000 messages of one config."""

    messages = fields.List(
        fields.Nested(BulkMessage),
        required=True,
        validate=validate.Length(min=1, max=MOST_MESSAGES),
    )
    config = _config()


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
