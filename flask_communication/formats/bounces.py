"""What mail servers say when an email comes back (RFC 3464), found in the mail that says it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

# What returns a mail, whole or its headers alone (RFC 3462, RFC 6533).
_RETURNED = ("message/rfc822", "message/global", "message/global-headers")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,996}>")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_ADDRESS = re.compile(r"[^\s<>,;]{1,64}@[^\s<>,;]{1,253}")
MOST = 500


@dataclass(frozen=True)
class Failed:
    """What became of an email for one recipient.

    ``action`` is failed, delayed, delivered, relayed or expanded (RFC 3464 §2.3.3); ``status`` is
    that of RFC 3463, such as "5.1.1"; ``diagnostic`` is what the server said.
    """

    address: str
    action: str
    status: str | None = None
    diagnostic: str | None = None


@dataclass(frozen=True)
class Bounce:
    """A report about an earlier email; ``message_id`` is that email's, if the report tells."""

    message_id: str | None
    recipients: list[Failed]


def found(message: Message) -> Bounce | None:
    """Return what a mail reports, or None if it is no report of delivery."""
    if message.get_content_type() != "multipart/report":
        return None
    if str(message.get_param("report-type")).lower() != "delivery-status":
        return None
    recipients = list(_recipients(message))[:MOST]
    return Bounce(_returned(message), recipients) if recipients else None


def _recipients(message: Message) -> Iterator[Failed]:
    for part in _parts(message):
        if part.get_content_type() == "message/delivery-status":
            # The first block is about the email, each other one about a recipient (RFC 3464 §2.1).
            yield from (one for block in _parts(part) for one in _recipient(block))


def _recipient(block: Message) -> Iterator[Failed]:
    # What we wrote to; the final one may be where it was forwarded to.
    address = _typed(block, "original-recipient") or _typed(block, "final-recipient")
    action = _line(block, "action").lower()
    if _ADDRESS.fullmatch(address) and action:
        status = _STATUS.search(_line(block, "status"))
        yield Failed(
            address, action, status and status[0], _typed(block, "diagnostic-code") or None
        )


def _returned(message: Message) -> str | None:
    """Return the Message-ID of the email that came back: what the report says of itself is no proof."""
    for part in _parts(message):
        if part.get_content_type() in _RETURNED and _parts(part):
            return _name(_parts(part)[0], "message-id")
        if part.get_content_type() == "text/rfc822-headers":
            text = part.get_payload(decode=True)
            if isinstance(text, bytes):
                return _name(HeaderParser().parsestr(text.decode("latin-1")), "message-id")
    return None


def _parts(message: Message) -> list[Message]:
    # get_payload() of a text would decode it by whatever codec it names.
    inner = message.get_payload() if message.is_multipart() else []
    return [one for one in inner if isinstance(one, Message)] if isinstance(inner, list) else []


def _name(message: Message, header: str) -> str | None:
    names = _MESSAGE_ID.findall(_line(message, header))
    return names[-1] if names else None


def _typed(block: Message, header: str) -> str:
    """Return a field's value without its type ("rfc822;", "smtp;")."""
    kind, semicolon, value = _line(block, header).partition(";")
    return (value if semicolon else kind).strip(" <>")[:500]


def _line(message: Message, header: str) -> str:
    text = str(message.get(header, ""))[:10_000]
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(shown.encode("utf-8", "replace").decode("utf-8").split())
