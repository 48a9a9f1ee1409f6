"""Parse a bounce: the delivery status notification that a mail server returns (RFC 3464)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from .addresses import is_address, message_ids
from .text import LONGEST_REASON, clean

# The types of the part that returns an email, whole or its headers alone (RFC 3462, RFC 6533).
_RETURNED = ("message/rfc822", "message/global", "message/global-headers")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
MOST_RECIPIENTS = 500
_LONGEST_FIELD = 10_000


@dataclass(frozen=True)
class RecipientReport:
    """What a bounce says of one recipient.

    ``action`` is failed, delayed, delivered, relayed or expanded (RFC 3464 §2.3.3); ``status`` is
    that of RFC 3463, such as "5.1.1"; ``diagnostic`` is what the server said.
    """

    address: str
    action: str
    status: str | None = None
    diagnostic: str | None = None


@dataclass(frozen=True)
class Bounce:
    """A report about an earlier email; ``message_id`` is that email's, if it was returned."""

    message_id: str | None
    recipients: list[RecipientReport]


def find_bounce(message: Message) -> Bounce | None:
    """Return the bounce that a mail is, or None for any other mail."""
    if message.get_content_type() != "multipart/report":
        return None
    if str(message.get_param("report-type")).lower() != "delivery-status":
        return None
    recipients = list(_recipients(message))[:MOST_RECIPIENTS]
    return Bounce(_returned_id(message), recipients) if recipients else None


def _recipients(message: Message) -> Iterator[RecipientReport]:
    for part in parts_of(message):
        if part.get_content_type() == "message/delivery-status":
            # The first block is about the email, each other one about a recipient (RFC 3464 §2.1).
            yield from (one for block in parts_of(part) for one in _recipient(block))


def _recipient(block: Message) -> Iterator[RecipientReport]:
    # The original recipient is whom we wrote to, the final one where it was forwarded to.
    address = _untyped(block, "original-recipient") or _untyped(block, "final-recipient")
    action = _field(block, "action").lower()
    if is_address(address) and action:
        status = _STATUS.search(_field(block, "status"))
        diagnostic = _untyped(block, "diagnostic-code") or None
        yield RecipientReport(address, action, status and status[0], diagnostic)


def _returned_id(message: Message) -> str | None:
    """Return the Message-ID of the returned email; the bounce's own headers prove nothing."""
    for part in parts_of(message):
        if part.get_content_type() in _RETURNED and parts_of(part):
            return _message_id(parts_of(part)[0])
        if part.get_content_type() == "text/rfc822-headers":
            text = part.get_payload(decode=True)
            if isinstance(text, bytes):
                return _message_id(HeaderParser().parsestr(text.decode("latin-1")))
    return None


def parts_of(message: Message) -> list[Message]:
    """Return the parts of a multipart, and of a mail within a mail; else none."""
    # get_payload() of a text would decode it by whatever codec it names.
    inner = message.get_payload() if message.is_multipart() else []
    return [one for one in inner if isinstance(one, Message)] if isinstance(inner, list) else []


def _message_id(message: Message) -> str | None:
    return next(reversed(message_ids(_field(message, "message-id"))), None)


def _untyped(block: Message, name: str) -> str:
    """Return a field's value without its type ("rfc822;", "smtp;")."""
    kind, semicolon, value = _field(block, name).partition(";")
    return (value if semicolon else kind).strip(" <>")[:LONGEST_REASON]


def _field(message: Message, name: str) -> str:
    return " ".join(clean(message.get(name, ""), _LONGEST_FIELD).split())
