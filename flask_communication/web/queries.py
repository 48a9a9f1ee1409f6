"""The query parameters of the REST interface, as schemas."""

from __future__ import annotations

from datetime import UTC, datetime

from marshmallow import Schema, fields

from ..storage.messages import MOST_A_PAGE
from .schemas import channel_name, status_name


class _Moment(fields.AwareDateTime):
    """A time of a query, where a plus sign arrives as a space; without a zone it is UTC."""

    default_error_messages = {"invalid": "must be a time such as 2026-11-23T12:00:00Z"}

    def _deserialize(
        self, value: str, attr: str | None, data: object, **kwargs: object
    ) -> datetime:
        try:
            found = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
        except ValueError:
            raise self.make_error("invalid") from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)


class _Recipient(fields.String):
    """A recipient in a query, where the plus sign of a number arrives as a space."""

    def _deserialize(self, value: str, attr: str | None, data: object, **kwargs: object) -> str:
        is_number = value[:1] == " " and "@" not in value and value.lstrip()[:1].isdigit()
        return f"+{value.lstrip()}" if is_number else value


class _Limit(fields.Integer):
    """The size of a page."""

    default_error_messages = {"invalid": "must be a whole number"}

    def _deserialize(self, value: str, attr: str | None, data: object, **kwargs: object) -> int:
        if not (value.isascii() and value.isdigit() and len(value) < 6):
            raise self.make_error("invalid")
        return int(value)


class ConfigFilter(Schema):
    """Which configurations to list."""

    type = channel_name()
    provider = fields.String()
    key = fields.String()


class WhichConfig(Schema):
    """The configuration that is meant."""

    id = fields.String(required=True, error_messages={"required": "which configuration? add ?id="})


class WhichConfigElse(Schema):
    """The configuration that is meant, if the body does not name it."""

    id = fields.String()


class _Page(Schema):
    after = fields.String(metadata={"description": "The `next` of the page before."})
    limit = _Limit(metadata={"minimum": 1, "maximum": MOST_A_PAGE})


class MessageFilter(_Page):
    """Which messages to list."""

    channel = channel_name()
    status = status_name()
    destination = _Recipient()
    key = fields.String()
    since = _Moment()
    until = _Moment()
    thread = fields.String(metadata={"description": "The uuid of an email of a conversation."})


class SuppressionFilter(_Page):
    """Which suppressed recipients to list."""

    channel = channel_name()
    destination = _Recipient()


class HTMLOptions(Schema):
    """How to show the HTML of an email."""

    images = fields.String(metadata={"description": "1 fetches the pictures from elsewhere."})


class FileOptions(Schema):
    """How to return a file of an email."""

    inline = fields.String(metadata={"description": "1 shows a picture, instead of saving it."})
