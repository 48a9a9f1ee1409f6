"""The shapes of the REST interface.

The views load with them and the description is made of them.
"""

from __future__ import annotations

import base64
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from ..configs.schema import ConfigCreate as ConfigCreate
from ..configs.schema import ConfigUpdate as ConfigUpdate


def _text_or_number(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValidationError("Not a text or a number.")


TEXT = validate.Length(min=1, max=1000)


class _Body(Schema):
    class Meta:
        unknown = RAISE


class ConfigDelete(_Body):
    """Which configuration to delete."""

    id = fields.Raw(
        required=True, validate=_text_or_number, metadata={"type": ["string", "integer"]}
    )
    csrf_token = fields.String()


class _Send(_Body):
    # The seed's; it is ignored.
    config = fields.Dict()
    send_at = fields.AwareDateTime(allow_none=True)
    expires_at = fields.AwareDateTime(allow_none=True)
    priority = fields.String(allow_none=True)
    metadata = fields.Dict(keys=fields.String(), allow_none=True)


class SendSMS(_Send):
    """The seed's body of a provider's call; ``config`` is ignored, ``key`` names one of ours."""

    msg = fields.String(required=True)
    destination = fields.String(required=True)
    key = fields.Raw(
        allow_none=True, validate=_text_or_number, metadata={"type": ["string", "integer"]}
    )


class Base64(fields.String):
    """Bytes, as base64."""

    def _deserialize(self, value: object, attr: str | None, data: object, **kwargs: object) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise ValidationError("Must be base64.") from None


class Upload(_Body):
    """A file of an email.

    ``inline`` (or a ``content_id``) lets the HTML show it as ``cid:`` and its name.
    """

    filename = fields.String(required=True, validate=validate.Length(min=1, max=255))
    content = Base64(required=True)
    content_type = fields.String(load_default=None, allow_none=True)
    content_id = fields.String(load_default=None, allow_none=True)
    inline = fields.Boolean(load_default=False, truthy={True}, falsy={False})


def _addresses(value: object) -> None:
    many = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in many):
        raise ValidationError("Not an address, or a list of addresses.")


def _mailboxes() -> fields.Raw:
    kind = {"type": ["string", "array"], "items": {"type": "string"}}
    return fields.Raw(validate=_addresses, metadata=kind, allow_none=True)


class SendEmail(_Send):
    """An email.

    ``key`` names a configuration, ``in_reply_to`` a message of ours, or a Message-ID.
    """

    to = _mailboxes()
    cc = _mailboxes()
    bcc = _mailboxes()
    reply_to = _mailboxes()
    subject = fields.String()
    body = fields.String()
    html = fields.String(allow_none=True)
    sender = fields.String(allow_none=True)
    headers = fields.Dict(keys=fields.String(), values=fields.String())
    in_reply_to = fields.String(allow_none=True)
    unsubscribe = fields.String(allow_none=True)
    key = fields.Raw(
        allow_none=True, validate=_text_or_number, metadata={"type": ["string", "integer"]}
    )
    attachments = fields.List(fields.Nested(Upload), validate=validate.Length(max=50))


class Retry(_Body):
    """Which message to send again; ``config`` is ignored."""

    msg_uuid = fields.String(required=True, validate=TEXT)
    config = fields.Dict()


class SyncInbox(_Body):
    """Which mailbox to read, by the key or id of its configuration; without one, all."""

    key = fields.Raw(
        allow_none=True, validate=_text_or_number, metadata={"type": ["string", "integer"]}
    )


class Synced(Schema):
    """How many mails were fetched, how many are new here, and how many mailboxes could not be read."""

    fetched = fields.Integer()
    new = fields.Integer()
    failed = fields.Integer()


class RetrySMS(_Body):
    """Which message to send again; what a stateless caller adds is ignored."""

    msg_uuid = fields.String(required=True, validate=TEXT)
    config = fields.Dict()
    msg = fields.String()
    destination = fields.String()


class Reports(_Body):
    """Whose delivery reports are asked for."""

    msg_uuids = fields.List(
        fields.String(validate=TEXT), required=True, validate=validate.Length(max=1000)
    )
    config = fields.Dict()


class Resolve(_Body):
    """What became of an unknown message."""

    decision = fields.String(required=True)


class Unsuppress(_Body):
    """A recipient, and for whom: a sender, a configuration's key or id, or, with neither, for anybody."""

    destination = fields.String(required=True)
    sender = fields.String(allow_none=True)
    key = fields.Raw(
        allow_none=True, validate=_text_or_number, metadata={"type": ["string", "integer"]}
    )


class Suppress(Unsuppress):
    """Who must not be written to, by whom, and why."""

    reason = fields.String()
    detail = fields.String(allow_none=True)


class Suppression(Schema):
    """A suppressed recipient as it is listed; ``scope`` is "", "sender:…" or "config:…"."""

    channel = fields.String()
    destination = fields.String()
    scope = fields.String()
    reason = fields.String()
    detail = fields.String(allow_none=True)
    created_at = fields.AwareDateTime()


class Config(Schema):
    """A configuration as it is listed."""

    id = fields.Integer()
    type = fields.String()
    provider = fields.String()
    provider_pkg_name = fields.String()
    key = fields.String(allow_none=True)
    config = fields.Dict()
    is_default = fields.Boolean()
    enabled = fields.Boolean()
    fallback = fields.List(fields.String())
    weight = fields.Integer()
    rate_per_second = fields.Float(allow_none=True)
    version = fields.Integer()
    problem = fields.String()


class Attempt(Schema):
    """One call to a provider."""

    key = fields.String()
    state = fields.String()
    started_at = fields.AwareDateTime()
    ended_at = fields.AwareDateTime(allow_none=True)
    http_status = fields.Integer(allow_none=True)
    provider_ref = fields.String(allow_none=True)
    error = fields.String(allow_none=True)
    error_code = fields.String(allow_none=True)


class Event(Schema):
    """Something that was said of a message."""

    kind = fields.String()
    status = fields.String(allow_none=True)
    detail = fields.String(allow_none=True)
    code = fields.String(allow_none=True)
    occurred_at = fields.AwareDateTime(allow_none=True)
    received_at = fields.AwareDateTime()
    applied = fields.Boolean()


class File(Schema):
    """A file of an email, by its place; its content is at ``email/file/<uuid>/<place>``."""

    place = fields.Integer()
    filename = fields.String()
    content_type = fields.String()
    content_id = fields.String(allow_none=True)


class Recipient(Schema):
    """One recipient of an email, and what became of it for them."""

    address = fields.String()
    kind = fields.String()
    status = fields.String()
    error = fields.String(allow_none=True)
    error_code = fields.String(allow_none=True)


class Mail(Schema):
    """What an email has besides; its HTML is at ``email/html/<uuid>``, made safe."""

    subject = fields.String()
    message_id = fields.String(attribute="rfc_message_id", allow_none=True)
    in_reply_to = fields.String(allow_none=True)
    thread_id = fields.Integer(allow_none=True)
    mailboxes = fields.Dict()
    has_html = fields.Function(lambda mail: mail.html is not None, metadata={"type": "boolean"})
    problem = fields.String(allow_none=True)
    files = fields.List(fields.Nested(File), attribute="attachments")


class Message(Schema):
    """A message in a list."""

    uuid = fields.String()
    channel = fields.String()
    direction = fields.String()
    status = fields.String()
    destination = fields.String()
    sender = fields.String(allow_none=True)
    msg = fields.String()
    config_id = fields.Integer(allow_none=True)
    provider_ref = fields.String(allow_none=True)
    error = fields.String(allow_none=True)
    error_code = fields.String(allow_none=True)
    due_at = fields.AwareDateTime(allow_none=True)
    expires_at = fields.AwareDateTime()
    created_at = fields.AwareDateTime()
    sent_at = fields.AwareDateTime(allow_none=True)
    metadata = fields.Dict(attribute="meta", allow_none=True)
    mail = fields.Nested(Mail, allow_none=True)


class Story(Message):
    """A message with its attempts and events."""

    attempts = fields.List(fields.Nested(Attempt))
    events = fields.List(fields.Nested(Event))
    recipients = fields.List(fields.Nested(Recipient))


class Id(Schema):
    """The number of a configuration."""

    id = fields.Integer()


class Uuid(Schema):
    """The id of a message, and what else the provider contract has there."""

    msg_uuid = fields.String()
    extra_data = fields.Dict()


class Status(Schema):
    """What became of one message."""

    msg_uuid = fields.String()
    status = fields.String()


class Error(Schema):
    """Why it did not work, and what to do."""

    success = fields.Boolean(required=True)
    msg = fields.String(required=True)
    errors = fields.Dict()
