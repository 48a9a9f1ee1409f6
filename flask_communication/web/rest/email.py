"""``email/…``: send emails, as JSON or as a form with files; their statuses, and the inbox."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from ...delivery.accept import OPTIONS
from ...email import Email
from ...email.api import FIELDS
from ...email.attachments import LARGEST_EMAIL
from ...errors import ProviderError
from .. import schemas
from ..endpoints import Endpoint
from ..envelope import BadRequest, ok

# The files as base64, and the texts.
LARGEST_BODY = LARGEST_EMAIL * 4 // 3 + 4_000_000


@Endpoint(
    "POST",
    "/email/send",
    "message.send",
    body=schemas.SendEmail,
    form=schemas.EmailForm,
    largest_body=LARGEST_BODY,
    is_idempotent=True,
    answer=schemas.MessageId,
    errors=(404, 409),
)
def send_email(body: dict[str, Any], idempotency_key: str | None) -> Response:
    """Accept an email, as JSON or a form with files; the same Idempotency-Key is one message."""
    email = Email(**{name: body[name] for name in FIELDS if name in body})
    for one in body.get("attachments", ()):
        email.attach(
            one["content"], one["filename"], one["content_type"], one["content_id"] or one["inline"]
        )
    _attach_uploads(email)
    options = {name: body[name] for name in OPTIONS if name in body}
    uuid = email.send(**options, idempotency_key=idempotency_key)
    return ok("Successfully queued", data={"msg_uuid": uuid, "extra_data": {}})


def _attach_uploads(email: Email) -> None:
    for name, uploads in request.files.lists():
        for upload in uploads:
            # A browser sends a file field that was left empty too.
            if upload.filename:
                email.attach(upload, inline=name == "inline")


@Endpoint("POST", "/email/retry", "message.retry", body=schemas.Retry, errors=(404, 409))
def retry_email(body: dict[str, Any]) -> Response:
    """Send an email again to those it has not reached; one that waits is sent at once."""
    Email.retry_send(body["msg_uuid"])
    return ok("Successfully queued")


@Endpoint(
    "POST",
    "/email/delivery_report",
    "message.read",
    body=schemas.Reports,
    answer=schemas.DeliveryReport(many=True),
)
def report_email(body: dict[str, Any]) -> Response:
    """Return the statuses of emails; those that do not exist are left out."""
    asked = body["msg_uuids"]
    known = Email.statuses(asked)
    return ok(data=[{"msg_uuid": one, "status": known[one]} for one in asked if one in known])


@Endpoint(
    "POST",
    "/email/sync_inbox",
    "inbox.sync",
    body=schemas.SyncInbox,
    answer=schemas.Synced,
    errors=(404, 502),
)
def sync_inbox(body: dict[str, Any]) -> Response:
    """Read one mailbox now, or all of them, before answering."""
    try:
        result = Email.sync_inbox(body.get("key"))
    except ProviderError as failure:
        raise BadRequest(502, f"the mailbox cannot be read: {failure.reason}") from None
    return ok(data=result._asdict())
