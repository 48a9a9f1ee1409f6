"""The envelope of the HTTP contract: what all its answers share, and the words of reports.

Both ends use these modules: :mod:`.remote` writes the requests and reads the answers,
:mod:`.blueprint` the other way round. Both ignore fields that they do not know, so either end can
be the newer one. Only what is written to a provider without a manifest is exact: the keys of the
seed and not one more, because strict third-party schemas refuse others.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from ..base import ReportStatus

# The width of our column for a provider's id of a message.
LONGEST_REF = 255

_WORDS: Mapping[ReportStatus, str] = {
    "sent": "sent queued held sending unknown pending accepted submitted scheduled processing "
    "in_progress in_transit enroute acceptd",
    "delivered": "delivered delivrd",
    "read": "read seen",
    "undelivered": "undelivered undeliverable undeliv failed failure rejected rejectd expired "
    "cancelled canceled deleted blocked",
}
# A word of a provider -> our status. The short ones are SMPP 3.4, appendix B.
REPORT_WORDS = {word: status for status, words in _WORDS.items() for word in words.split()}


def status_of(word: str) -> ReportStatus | None:
    """Translate a report's word, in any case, to our status; None for an unknown word."""
    return REPORT_WORDS.get(word.strip().lower().replace("-", "_").replace(" ", "_"))


class Lenient(Schema):
    """A schema that ignores fields it does not know."""

    class Meta:
        unknown = EXCLUDE


class Ref(fields.String):
    """A provider's id of a message: a string or whole number, 1 to 255 printable characters."""

    def _deserialize(self, value: object, attr: str | None, data: object, **kwargs: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if not 1 <= len(text) <= LONGEST_REF or not text.isprintable() or text.isspace():
            raise ValidationError(f"Must be 1 to {LONGEST_REF} printable characters.")
        return text


class Acceptance(Lenient):
    """The ``data`` of an accepted send."""

    msg_uuid = Ref(required=True)
    extra_data = fields.Raw(load_default=None, allow_none=True)


class Envelope(Lenient):
    """The fields of every answer; those from ``outcome`` on are additions to the seed's."""

    success = fields.Boolean(required=True, truthy={True}, falsy={False})
    msg = fields.Raw(load_default=None, allow_none=True)
    data = fields.Raw(load_default=None, allow_none=True)
    outcome = fields.Raw(load_default=None, allow_none=True)
    only_this = fields.Raw(load_default=None, allow_none=True)
    retry_after = fields.Raw(load_default=None, allow_none=True)
    code = fields.Raw(load_default=None, allow_none=True)
    opted_out = fields.Raw(load_default=None, allow_none=True)


class BulkResult(Envelope):
    """One result of a bulk request; they are in the order of its messages."""

    msg_uuid = fields.Raw(load_default=None, allow_none=True)
    extra_data = fields.Raw(load_default=None, allow_none=True)


class ReportItem(Lenient):
    """One delivery report: the seed's two fields, and optional details."""

    msg_uuid = Ref(required=True)
    status = fields.String(required=True)
    detail = fields.Raw(load_default=None, allow_none=True)
    code = fields.Raw(load_default=None, allow_none=True)
    recipient = fields.Raw(load_default=None, allow_none=True)
    event_id = fields.Raw(load_default=None, allow_none=True)
    occurred_at = fields.Raw(load_default=None, allow_none=True)
    opted_out = fields.Raw(load_default=None, allow_none=True)


def moment(value: Any) -> datetime | None:
    """Parse a time with its zone (ISO 8601); None for anything else, which could be hours off."""
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else None
