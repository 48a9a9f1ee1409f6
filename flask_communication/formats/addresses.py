"""Email addresses and what else goes into a header: checked, so that no line of ours can be broken."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Any

from ..errors import InvalidMessage
from . import headers as header

MOST_RECIPIENTS = 500
_NO_ADDRESS = "must be an email address such as ann@example.com, each on its own"
MOST_HEADERS = 50
# 200 characters of a name, as formataddr() encodes them, and an address.
LONGEST_MAILBOX = 2_000
LONGEST_WORD = 900
# RFC 5321 §4.5.3.1: 64 octets before the @, 254 in all (RFC 3696, erratum 1690).
_ADDRESS = re.compile(
    r"[^\s@<>()\[\],;:\\\"]{1,64}@(?=.{1,253}$)[^\W_](?:[\w-]*[^\W_])?(?:\.[^\W_](?:[\w-]*[^\W_])?)*"
)
_MAILBOX = re.compile(r"\s*(?:(?P<name>.*?)\s*<(?P<inner>[^<>]*)>|(?P<bare>[^<>]*?))\s*", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
# RFC 5322 §3.6.4, without the folding and the obsolete forms that nobody should make.
MESSAGE_ID = re.compile(r"<[^\s<>@]{1,450}@[^\s<>@]{1,450}>")
# What the message itself decides, or must not be forged by a header of the caller's.
_RESERVED = frozenset(
    "from to cc bcc sender reply-to subject date message-id in-reply-to references mime-version "
    "received return-path dkim-signature authentication-results".split()
)


def bare(mailbox: str) -> str:
    """Return the address of a checked mailbox such as ``Ann <ann@x.example>``."""
    found = _MAILBOX.fullmatch(mailbox)
    assert found is not None
    return (found["inner"] or found["bare"] or "").strip()


def is_address(text: str) -> bool:
    """Tell whether this is a bare address, such as ``ann@x.example``, that we would write to."""
    return len(text) <= 254 and _ADDRESS.fullmatch(text) is not None


def mailbox(field: str, raw: Any) -> str:
    """Return one mailbox, ``ann@x.example`` or ``Ann <ann@x.example>``; raise :class:`InvalidMessage`.

    A pair (name, address) will do, too, and what ``email.utils.formataddr`` makes. The domain comes
    out in small ASCII letters. Quoted local parts and several addresses in one string are refused.
    """
    if isinstance(raw, tuple) and len(raw) == 2 and all(isinstance(one, str) for one in raw):
        raw = f"{raw[0]} <{raw[1]}>"
    found = _MAILBOX.fullmatch(raw) if _is_short_line(raw) else None
    if found is None:
        raise InvalidMessage({field: [_NO_ADDRESS]})
    address = _checked(field, (found["inner"] or found["bare"] or "").strip())
    name = _name(field, (found["name"] or "").strip())
    return f"{name} <{address}>" if name else address


def _is_short_line(raw: Any) -> bool:
    return isinstance(raw, str) and len(raw) <= LONGEST_MAILBOX and header.is_line(raw)


def canonical(address: str) -> str:
    """Return an address as it is stored, its domain in small ASCII letters.

    What is none stays as it is.
    """
    try:
        return header.canonical(address)
    except ValueError:
        return address


def _checked(field: str, address: str) -> str:
    try:
        found = header.canonical(address)
    except ValueError as why:
        raise InvalidMessage({field: [f"has a domain that cannot be: {why!s:.100}"]}) from None
    if not is_address(found):
        raise InvalidMessage({field: [_NO_ADDRESS]})
    return found


def _name(field: str, raw: str) -> str:
    """Return a name as a mailbox shows it: in quotes only where it would be misread without."""
    if _QUOTED.fullmatch(raw):
        name = re.sub(r"\\(.)", r"\1", raw[1:-1])
    else:
        # Two addresses in one string look like this.
        if "<" in raw or ">" in raw:
            raise InvalidMessage({field: ["a name with angle brackets must be in quotes"]})
        name = _decoded(raw)
    if len(name) > 200 or not header.is_line(name):
        raise InvalidMessage({field: ["the name must be at most 200 printable characters"]})
    if not any(sign in name for sign in '"<>\\'):
        return name
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _decoded(name: str) -> str:
    if "=?" not in name:
        return name
    try:
        return str(make_header(decode_header(name)))
    except (HeaderParseError, LookupError, ValueError):
        return name


def mailboxes(field: str, raw: Any) -> list[str]:
    """Return a list of mailboxes, of one or of many; raise :class:`InvalidMessage`."""
    if raw is None or raw == "":
        return []
    many = list(raw) if isinstance(raw, list | set | frozenset) or _is_many(raw) else [raw]
    if len(many) > MOST_RECIPIENTS:
        raise InvalidMessage(
            {field: [f"has {len(many)} addresses; at most {MOST_RECIPIENTS} go in one email"]}
        )
    return [mailbox(field, one) for one in many]


def _is_many(raw: Any) -> bool:
    # ("Ann", "ann@x.example") is one mailbox, ("ann@x.example", "bob@x.example") are two.
    return isinstance(raw, tuple) and not (
        len(raw) == 2 and "@" not in str(raw[0]) and "@" in str(raw[1])
    )


def line(field: str, raw: Any, limit: int) -> str:
    """Return a text that fits into one header; raise :class:`InvalidMessage`."""
    if not isinstance(raw, str) or len(raw) > limit or not header.is_line(raw):
        raise InvalidMessage({field: [f"must be one line of at most {limit} printable characters"]})
    return raw


def headers(raw: Any) -> dict[str, str]:
    """Return extra headers.

    Raise :class:`InvalidMessage` for one that is ours or would break the mail.
    """
    if raw is None:
        return {}
    if not isinstance(raw, Mapping) or len(raw) > MOST_HEADERS:
        raise InvalidMessage(
            {"headers": [f"must be a dictionary of at most {MOST_HEADERS} headers"]}
        )
    wrong = {
        f"headers.{name!s:.70}": ["is no name of a header that may be set here"]
        for name in raw
        if not isinstance(name, str)
        or not _HEADER.fullmatch(name)
        or name.lower() in _RESERVED
        or name.lower().startswith(("content-", "resent-", "arc-", "dkim-"))
    }
    if wrong:
        raise InvalidMessage(wrong)
    return {name: _value(f"headers.{name}", value) for name, value in raw.items()}


def _value(field: str, raw: Any) -> str:
    value = line(field, raw, 2000)
    # A line has 998 octets at most (RFC 5322 §2.1.1) and is folded between words, which grow when
    # encoded.
    if any(len(word) > LONGEST_WORD for word in value.split(" ")):
        raise InvalidMessage({field: [f"must have no word of more than {LONGEST_WORD} characters"]})
    return value


def recipients(groups: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return (kind, bare address) of all recipients of to, cc and bcc, each address once."""
    found: dict[str, str] = {}
    for kind in ("to", "cc", "bcc"):
        for one in groups[kind]:
            found.setdefault(bare(one), kind)
    if not found:
        raise InvalidMessage({"to": ["has no recipient"]})
    if len(found) > MOST_RECIPIENTS:
        raise InvalidMessage(
            {"to": [f"there are {len(found)} recipients; at most {MOST_RECIPIENTS}"]}
        )
    return [(kind, address) for address, kind in found.items()]
