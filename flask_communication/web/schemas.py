"""The schemas of the REST interface: bodies and answers.

The endpoints load bodies with them, and OpenAPI is made from them. The texts that have only
certain values are validated by the code behind; here they are listed for OpenAPI.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, NoReturn

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, validate

from ..configs.schema import ConfigCreate as ConfigCreate
from ..configs.schema import ConfigUpdate as ConfigUpdate
from ..delivery.actions import RESOLUTIONS
from ..delivery.policy.suppression import REASONS
from ..storage.models import CHANNELS, PRIORITIES
from ..storage.models.status import ATTEMPTS, STATUSES


def _text_or_number(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValidationError("Not a text or a number.")


def _one_of(known: Iterable[str], **options: Any) -> fields.String:
    values: list[str | None] = [*known, None] if options.get("allow_none") else [*known]
    return fields.String(metadata={"enum": values}, **options)


def channel_name() -> fields.String:
    """Return a field for the name of a channel."""
    return _one_of(CHANNELS)


def status_name() -> fields.String:
    """Return a field for a status of messages."""
    return _one_of(sorted(STATUSES))


class _File(fields.Raw):
    default_error_messages = {"invalid": "must be a file"}

    def _deserialize(self, *args: object, **kwargs: object) -> NoReturn:
        raise self.make_error("invalid")


def _file() -> fields.Raw:
    """Return a field for a file of a form, which is read from ``request.files``: no text is one."""
    return _File(metadata={"type": "string", "format": "binary"})


def _key() -> fields.Raw:
    """Return a field for the key of a configuration, or its id."""
    kind = {"type": ["string", "integer"]}
    return fields.Raw(allow_none=True, validate=_text_or_number, metadata=kind)


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


class ConfigDeleteForm(Schema):
    """The configuration to delete, as a form; its other fields are ignored."""

    class Meta:
        unknown = EXCLUDE

    id = fields.String(required=True, error_messages={"required": "which configuration?"})
    csrf_token = fields.String()


class _Send(_Body):
    # Of the provider contract; it is ignored.
    config = fields.Dict()
    send_at = fields.AwareDateTime(allow_none=True)
    expires_at = fields.AwareDateTime(allow_none=True)
    priority = _one_of(PRIORITIES, allow_none=True)
    metadata = fields.Dict(keys=fields.String(), allow_none=True)


class SendSMS(_Send):
    """An SMS, as in the provider contract; ``key`` names a configuration, ``config`` is ignored."""

    msg = fields.String(required=True)
    destination = fields.String(required=True)
    key = _key()


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


class _Email(_Send):
    subject = fields.String()
    body = fields.String()
    html = fields.String(allow_none=True)
    sender = fields.String(allow_none=True)
    headers = fields.Dict(keys=fields.String(), values=fields.String())
    in_reply_to = fields.String(allow_none=True)
    unsubscribe = fields.String(allow_none=True)
    key = _key()


class SendEmail(_Email):
    """An email.

    ``key`` names a configuration, ``in_reply_to`` a message of ours, or a Message-ID.
    """

    to = _mailboxes()
    cc = _mailboxes()
    bcc = _mailboxes()
    reply_to = _mailboxes()
    attachments = fields.List(fields.Nested(Upload), validate=validate.Length(max=50))


class EmailForm(_Email):
    """An email as a form.

    A field with several mailboxes is repeated, and objects are JSON. Files come under any name;
    the HTML shows those under ``inline`` by their names.
    """

    error_messages = {"unknown": "is not a field of an email"}

    to = fields.List(fields.String())
    cc = fields.List(fields.String())
    bcc = fields.List(fields.String())
    reply_to = fields.List(fields.String())
    files = fields.List(_file())
    inline = fields.List(_file())
    csrf_token = fields.String()


class Retry(_Body):
    """Which message to send again; ``config`` is ignored."""

    msg_uuid = fields.String(required=True, validate=TEXT)
    config = fields.Dict()


class SyncInbox(_Body):
    """Which mailbox to read, by the key or id of its configuration; without one, all."""

    key = _key()


class Synced(Schema):
    """How many mails were fetched and are new, and how many mailboxes could not be read."""

    fetched = fields.Integer()
    new = fields.Integer()
    failed = fields.Integer()


class RetrySMS(_Body):
    """Which message to send again; the other fields of the provider contract are ignored."""

    msg_uuid = fields.String(required=True, validate=TEXT)
    config = fields.Dict()
    msg = fields.String()
    destination = fields.String()


class Reports(_Body):
    """The messages whose statuses are asked for."""

    msg_uuids = fields.List(
        fields.String(validate=TEXT), required=True, validate=validate.Length(max=1000)
    )
    config = fields.Dict()


class Resolve(_Body):
    """What became of an unknown message."""

    decision = _one_of(RESOLUTIONS, required=True)


class Unsuppress(_Body):
    """A recipient, and for whom: a sender, a configuration, or with neither every sender."""

    destination = fields.String(required=True)
    sender = fields.String(allow_none=True)
    key = _key()


class Suppress(Unsuppress):
    """A recipient to suppress, for whom, and why."""

    reason = _one_of(REASONS)
    detail = fields.String(allow_none=True)


class Suppression(Schema):
    """A suppressed recipient as it is listed; ``scope`` is "", "sender:…" or "config:…"."""

    channel = channel_name()
    destination = fields.String()
    scope = fields.String()
    reason = _one_of(REASONS)
    detail = fields.String(allow_none=True)
    created_at = fields.AwareDateTime()


class Config(Schema):
    """A configuration as it is listed."""

    id = fields.Integer()
    type = channel_name()
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
    """One try to send a message."""

    key = fields.String()
    state = _one_of(ATTEMPTS)
    started_at = fields.AwareDateTime()
    ended_at = fields.AwareDateTime(allow_none=True)
    http_status = fields.Integer(allow_none=True)
    provider_ref = fields.String(allow_none=True)
    error = fields.String(allow_none=True)
    error_code = fields.String(allow_none=True)


class Event(Schema):
    """An event of a message, such as a delivery report."""

    kind = fields.String()
    status = _one_of(sorted(STATUSES), allow_none=True)
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
    """One recipient of an email, with a status of its own."""

    address = fields.String()
    kind = _one_of(("to", "cc", "bcc"))
    status = status_name()
    error = fields.String(allow_none=True)
    error_code = fields.String(allow_none=True)


class Mail(Schema):
    """The email of a message; its HTML is at ``email/html/<uuid>``, sandboxed."""

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
    channel = channel_name()
    direction = _one_of(("out", "in"))
    status = status_name()
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


class ConfigNumber(Schema):
    """The id of a configuration."""

    id = fields.Integer()


class MessageId(Schema):
    """The uuid of a message, in the form of the provider contract."""

    msg_uuid = fields.String()
    extra_data = fields.Dict()


class DeliveryReport(Schema):
    """The status of one message."""

    msg_uuid = fields.String()
    status = status_name()


class Error(Schema):
    """The answer to a request that did not work: why, and what to do."""

    success = fields.Boolean(required=True)
    msg = fields.String(required=True)
    errors = fields.Dict()
    # The details of a health check that failed.
    data = fields.Dict()
