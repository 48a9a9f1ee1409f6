"""The HTTP contract for email: the bodies of its requests and answers, for both ends.

Files and mails are base64 within JSON. Everything else is as for SMS (see :mod:`.sms`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, validate

from ...formats.addresses import MOST_RECIPIENTS
from ...formats.text import is_line, mask
from ..base import MOST_MAIL_BYTES, File, InboundEmail, Inbox, OutboundEmail
from .envelope import Lenient, Ref, moment

SEND = "email/send/"
RETRY = "email/retry/"
REPORT = "email/delivery_report/"
INBOX = "email/inbox/"

# 18 MB of files as base64, and the text twice.
LONGEST_BODY = 32 * 1024 * 1024
MOST_MAILS = 50
LONGEST_CURSOR = 64 * 1024
_LONGEST_PLACE = 1000
_LONGEST_FLAW = 500
# JSON writes a character as up to two groups of \uXXXX; 200 more for the names of the fields.
_LONGEST_ENVELOPE = 12 * (2 * _LONGEST_PLACE + _LONGEST_FLAW) + 200
# The longest answer to email/inbox/, with the mails as base64.
LONGEST_INBOX = MOST_MAIL_BYTES * 4 // 3 + MOST_MAILS * _LONGEST_ENVELOPE + LONGEST_CURSOR + 1000


class LineField(fields.String):
    """One line of text, as it goes into a header."""

    def __init__(self, longest: int = 998, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._longest = longest

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if len(text) > self._longest or not is_line(text):
            raise ValidationError(
                f"Must be one line of at most {self._longest} characters, no controls."
            )
        return text


class Base64Field(fields.String):
    """Bytes, written as base64."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValidationError("Must be base64.") from None


class FileBody(Lenient):
    """A file of an email."""

    filename = LineField(255, required=True)
    content_type = LineField(127, load_default="application/octet-stream")
    content = Base64Field(required=True)
    content_id = LineField(255, load_default=None, allow_none=True)


def _lines(most: int, **kwargs: Any) -> Any:
    return fields.List(LineField(), validate=validate.Length(max=most), **kwargs)


class SendBody(Lenient):
    """``email/send/``, and with ``msg_uuid`` ``email/retry/``."""

    msg_uuid = Ref(load_default=None, allow_none=True)
    message_id = LineField(required=True)
    sender = LineField(required=True, validate=validate.Length(min=3))
    recipients = fields.List(
        LineField(320, validate=validate.Length(min=3)),
        required=True,
        validate=validate.Length(min=1, max=MOST_RECIPIENTS),
    )
    subject = LineField(load_default="")
    body = fields.String(load_default="")
    html = fields.String(load_default=None, allow_none=True)
    to = _lines(MOST_RECIPIENTS, load_default=list)
    cc = _lines(MOST_RECIPIENTS, load_default=list)
    reply_to = _lines(MOST_RECIPIENTS, load_default=list)
    headers = fields.Dict(keys=LineField(76), values=LineField(2000), load_default=dict)
    in_reply_to = LineField(load_default=None, allow_none=True)
    references = _lines(100, load_default=list)
    attachments = fields.List(
        fields.Nested(FileBody), load_default=list, validate=validate.Length(max=100)
    )
    config = fields.Dict(keys=fields.String(), load_default=dict)


class InboxBody(Lenient):
    """``email/inbox/``: the cursor, and the most mails to return."""

    cursor = fields.Dict(keys=fields.String(), load_default=dict)
    limit = fields.Integer(load_default=MOST_MAILS, validate=validate.Range(min=1, max=1000))
    config = fields.Dict(keys=fields.String(), load_default=dict)


class MailItem(Lenient):
    """One mail of an inbox."""

    uid = LineField(_LONGEST_PLACE, required=True)
    folder = LineField(_LONGEST_PLACE, load_default="INBOX")
    received_at = fields.String(load_default=None, allow_none=True)
    flaw = LineField(_LONGEST_FLAW, load_default=None, allow_none=True)
    raw = Base64Field(required=True)


class InboxData(Lenient):
    """The ``data`` of an answer to ``email/inbox/``."""

    mails = fields.List(fields.Nested(MailItem), required=True, validate=validate.Length(max=1000))
    cursor = fields.Dict(keys=fields.String(), required=True)
    more = fields.Boolean(load_default=False, truthy={True}, falsy={False})


_INBOX_DATA = InboxData()


def send_body(email: OutboundEmail, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of ``email/send/``; with its ``msg_uuid``, that of ``email/retry/``."""
    known = {} if email.provider_ref is None else {"msg_uuid": email.provider_ref}
    return {
        **known,
        "message_id": email.message_id,
        "sender": email.sender,
        "recipients": list(email.recipients),
        "subject": email.subject,
        "body": email.body,
        "html": email.html,
        "to": list(email.to),
        "cc": list(email.cc),
        "reply_to": list(email.reply_to),
        "headers": dict(email.headers),
        "in_reply_to": email.in_reply_to,
        "references": list(email.references),
        "attachments": [_written(one) for one in email.files],
        "config": dict(config),
    }


def _written(file: File) -> dict[str, Any]:
    return {
        "filename": file.filename,
        "content_type": file.content_type,
        "content": base64.b64encode(file.content).decode(),
        "content_id": file.content_id,
    }


def email_of(given: Mapping[str, Any], key: str) -> OutboundEmail:
    """Return the email that a loaded :class:`SendBody` is."""
    same = (
        "message_id sender recipients subject body html to cc reply_to headers in_reply_to"
        " references"
    )
    return OutboundEmail(
        key=key,
        provider_ref=given["msg_uuid"],
        files=[File(**one) for one in given["attachments"]],
        **{name: given[name] for name in same.split()},
    )


def inbox_body(cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of ``email/inbox/``."""
    return {"cursor": dict(cursor), "limit": min(limit, MOST_MAILS), "config": dict(config)}


def inbox_data(found: Inbox) -> dict[str, Any]:
    """Return the ``data`` of an answer to ``email/inbox/``."""
    mails = [
        {
            "uid": one.uid,
            "folder": one.folder,
            "received_at": one.received_at and one.received_at.isoformat(),
            "flaw": one.flaw and mask(one.flaw),
            "raw": base64.b64encode(one.raw).decode(),
        }
        for one in found.mails
    ]
    return {"mails": mails, "cursor": dict(found.cursor), "more": found.more}


def inbox_of(data: Any, size: int) -> Inbox:
    """Read the ``data`` of an answer; ``size`` is that of its cursor as JSON.

    Raises marshmallow's ValidationError.
    """
    given = _INBOX_DATA.load(data)
    if size > LONGEST_CURSOR:
        raise ValidationError({"cursor": [f"Must be at most {LONGEST_CURSOR} bytes."]})
    mails = [
        InboundEmail(one["uid"], one["raw"], one["folder"], moment(one["received_at"]), one["flaw"])
        for one in given["mails"]
    ]
    return Inbox(mails, given["cursor"], given["more"])
