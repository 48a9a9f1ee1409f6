"""``email/…``: accept emails, as JSON or as a form with files; ask about them; read the inbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import request

from ...delivery.accept import OPTIONS
from ...email import Email
from ...email.api import FIELDS
from ...email.attachments import LARGEST_EMAIL
from ...errors import ProviderError
from .. import access, schemas
from ..envelope import BadRequest, fitted, json_field, loaded, ok

# The files as base64, and the texts.
LONGEST_BODY = LARGEST_EMAIL * 4 // 3 + 4_000_000
_MANY = ("to", "cc", "bcc", "reply_to")
_ONE = ("subject", "body", "html", "sender", "key", "in_reply_to", "unsubscribe")
_OPTIONS = tuple(name for name in OPTIONS if name != "idempotency_key")
# In a form these are JSON.
_OBJECTS = ("headers", "metadata", "config")
_SINGLE = tuple(dict.fromkeys((*_ONE, *_OPTIONS, *_OBJECTS)))


@access.needs("message.send")
def send() -> Any:
    """Accept an email."""
    is_form = request.mimetype == "multipart/form-data"
    given = _of_form() if is_form else loaded(schemas.SendEmail, LONGEST_BODY)
    email = _attached(_email(given), given.get("attachments", ()))
    options = {name: given[name] for name in _OPTIONS if name in given}
    uuid = email.send(idempotency_key=request.headers.get("Idempotency-Key"), **options)
    return ok("Successfully queued", data={"msg_uuid": uuid, "extra_data": {}})


def _email(given: Mapping[str, Any]) -> Email:
    return Email(**{name: value for name, value in given.items() if name in FIELDS})


def _attached(email: Email, files: Sequence[Mapping[str, Any]]) -> Email:
    for one in files:
        email.attach(
            one["content"], one["filename"], one["content_type"], one["content_id"] or one["inline"]
        )
    for name, uploads in request.files.lists():
        for upload in uploads:
            # A browser sends a file field that was left empty too.
            if upload.filename:
                email.attach(upload, inline=name == "inline")
    return email


def _of_form() -> dict[str, Any]:
    if (request.content_length or 0) > LONGEST_BODY:
        raise BadRequest(413, f"the body is larger than {LONGEST_BODY} bytes")
    strangers = sorted(set(request.form) - {*_MANY, *_SINGLE, access.FIELD})
    repeated = sorted(name for name in _SINGLE if len(request.form.getlist(name)) > 1)
    if strangers or repeated:
        wrong = {name: ["is not a field of an email"] for name in strangers}
        wrong |= {name: ["is given more than once"] for name in repeated}
        raise BadRequest(422, "these fields are wrong", wrong)
    fields: dict[str, Any] = {
        name: request.form.getlist(name) for name in _MANY if name in request.form
    }
    for name in _SINGLE:
        if given := request.form.get(name):
            fields[name] = json_field(name, given) if name in _OBJECTS else given
    return fitted(schemas.SendEmail, fields)


@access.needs("message.retry")
def retry() -> Any:
    """Send an email again to those it has not reached.

    What waits for its turn anyway is no mistake.
    """
    Email.retry_send(loaded(schemas.Retry)["msg_uuid"])
    return ok("Successfully queued")


@access.needs("message.read")
def report() -> Any:
    """Tell what became of emails; those that do not exist are left out."""
    asked = loaded(schemas.Reports)["msg_uuids"]
    known = Email.statuses(asked)
    return ok(data=[{"msg_uuid": one, "status": known[one]} for one in asked if one in known])


@access.needs("inbox.sync")
def sync_inbox() -> Any:
    """Read what is new in one mailbox, or in all of them, before answering."""
    try:
        result = Email.sync_inbox(loaded(schemas.SyncInbox).get("key"))
    except ProviderError as failure:
        raise BadRequest(502, f"the mailbox cannot be read: {failure.reason}") from None
    return ok(data=result._asdict())
