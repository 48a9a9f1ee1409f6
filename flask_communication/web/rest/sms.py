"""``sms/…``: the provider contract, served by this application."""

from __future__ import annotations

from typing import Any

from flask import Response

from ...sms import SMS
from .. import schemas
from ..endpoints import Endpoint
from ..envelope import ok


@Endpoint(
    "POST",
    "/sms/send",
    "message.send",
    body=schemas.SendSMS,
    is_idempotent=True,
    answer=schemas.MessageId,
    errors=(404, 409),
)
def send_sms(body: dict[str, Any], idempotency_key: str | None) -> Response:
    """Accept an SMS; the same Idempotency-Key is one message."""
    body.pop("config", None)
    uuid = SMS.send_msg(**body, idempotency_key=idempotency_key)
    return ok("Successfully queued", data={"msg_uuid": uuid, "extra_data": {}})


@Endpoint("POST", "/sms/retry", "message.retry", body=schemas.RetrySMS, errors=(404, 409))
def retry_sms(body: dict[str, Any]) -> Response:
    """Send an SMS again; one that waits for its turn is sent at once."""
    SMS.retry_send(body["msg_uuid"])
    return ok("Successfully queued")


@Endpoint(
    "POST",
    "/sms/delivery_report",
    "message.read",
    body=schemas.Reports,
    answer=schemas.DeliveryReport(many=True),
)
def report_sms(body: dict[str, Any]) -> Response:
    """Return the statuses of SMS; those that do not exist are left out."""
    asked = body["msg_uuids"]
    known = SMS.statuses(asked)
    return ok(data=[{"msg_uuid": one, "status": known[one]} for one in asked if one in known])
