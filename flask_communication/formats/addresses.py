"""Email addresses, mailboxes, Message-IDs and header fields, checked (RFC 5322)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from email.errors import HeaderParseError
from email.header import decode_header, make_header

from ..errors import InvalidMessage
from .text import header_line, is_line

MOST_RECIPIENTS = 500
MOST_HEADERS = 50
# 200 characters of a name, as formataddr() encodes them, and an address.
LONGEST_MAILBOX = 2_000
_LONGEST_NAME = 200
# RFC 5321 §4.5.3.1: 64 octets before the @, 254 in all (RFC 3696, erratum 1690).
LONGEST_ADDRESS = 254
_LONGEST_DOMAIN = 255
# A word stands on one line of at most 998 octets (RFC 5322 §2.1.1), after the header's name.
LONGEST_WORD = 930
_LONGEST_VALUE = 2_000
_NO_ADDRESS = "must be an email address such as ann@example.com, each on its own"
# No quoted local parts and no address literals: they are rare, and they hide addresses.
_ADDRESS = re.compile(
    r"[^\s@<>()\[\],;:\\\"\ud800-\udfff]{1,64}"
    r"@(?=.{1,253}$)[^\W_](?:[\w-]*[^\W_])?(?:\.[^\W_](?:[\w-]*[^\W_])?)*"
)
_MAILBOX = re.compile(r"\s*(?:(?P<name>.*?)\s*<(?P<inner>[^<>]*)>|(?P<bare>[^<>]*?))\s*", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
# ASCII without spaces (RFC 5322 §3.6.4), as long as one line of a reply's References can be.
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,920}>")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
# Headers that we write ourselves, or that servers on the way add as proof.
_RESERVED_HEADERS = frozenset(
    "from sender to cc bcc reply-to subject date message-id in-reply-to references mime-version "
    "received return-path authentication-results".split()
)
_RESERVED_PREFIXES = ("content-", "resent-", "arc-", "dkim-")


def is_address(text: str) -> bool:
    """Tell whether this is a bare address, such as ``ann@x.example``, that can be written to."""
    return len(text) <= LONGEST_ADDRESS and _ADDRESS.fullmatch(text) is not None


def is_message_id(text: str) -> bool:
    """Tell whether this is one Message-ID, with its angle brackets."""
    return _MESSAGE_ID.fullmatch(text) is not None


def message_ids(text: str) -> list[str]:
    """Return the Message-IDs of a header such as References, each once, in order."""
    return list(dict.fromkeys(_MESSAGE_ID.findall(text)))


def is_free_header(name: str) -> bool:
    """Tell whether a caller may set a header of this name: it is valid, and not reserved."""
    low = name.lower()
    return (
        _HEADER_NAME.fullmatch(name) is not None
        and low not in _RESERVED_HEADERS
        and not low.startswith(_RESERVED_PREFIXES)
    )


def with_ascii_domain(address: str) -> str:
    """Return an address with its domain in lower-case ASCII (RFC 5891).

    Raises ValueError for a domain that cannot exist.
    """
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return f"{local}{at}{domain.lower()}"
    if len(domain) > _LONGEST_DOMAIN:
        raise ValueError("it is too long")
    import idna

    # The standard library's codec is of 2003, and takes straße.example for strasse.example.
    return f"{local}{at}{idna.encode(domain, uts46=True).decode()}"


def canonical(address: str) -> str:
    """Return an address as it is stored: its domain in lower-case ASCII.

    A text that is no address is returned unchanged.
    """
    try:
        return with_ascii_domain(address)
    except ValueError:
        return address


def bare(mailbox: str) -> str:
    """Return the address of a checked mailbox such as ``Ann <ann@x.example>``."""
    found = _MAILBOX.fullmatch(mailbox)
    assert found is not None
    return (found["inner"] or found["bare"] or "").strip()


def mailbox(field: str, raw: object) -> str:
    """Return one mailbox, checked: ``ann@x.example`` or ``Ann <ann@x.example>``.

    It may be given as a pair (name, address), or as ``email.utils.formataddr`` writes it. Its
    domain becomes lower-case ASCII. Raises :class:`InvalidMessage`, also for a quoted local part
    and for several addresses in one string.
    """
    if isinstance(raw, tuple) and len(raw) == 2 and all(isinstance(one, str) for one in raw):
        raw = f"{raw[0]} <{raw[1]}>"
    is_short_line = isinstance(raw, str) and len(raw) <= LONGEST_MAILBOX and is_line(raw)
    found = _MAILBOX.fullmatch(raw) if isinstance(raw, str) and is_short_line else None
    if found is None:
        raise InvalidMessage({field: [_NO_ADDRESS]})
    address = _checked(field, (found["inner"] or found["bare"] or "").strip())
    name = _name(field, (found["name"] or "").strip())
    return f"{name} <{address}>" if name else address


def _checked(field: str, address: str) -> str:
    try:
        found = with_ascii_domain(address)
    except ValueError as why:
        raise InvalidMessage({field: [f"has a domain that cannot exist: {why!s:.100}"]}) from None
    if not is_address(found):
        raise InvalidMessage({field: [_NO_ADDRESS]})
    return found


def _name(field: str, raw: str) -> str:
    """Return the name of a mailbox; in quotes only where it would be misread without them."""
    if _QUOTED.fullmatch(raw):
        name = re.sub(r"\\(.)", r"\1", raw[1:-1])
    else:
        # Two addresses in one string look like this, too.
        if "<" in raw or ">" in raw:
            raise InvalidMessage({field: ["a name with angle brackets must be in quotes"]})
        name = _decoded(raw)
    if len(name) > _LONGEST_NAME or not is_line(name):
        raise InvalidMessage(
            {field: [f"the name must be at most {_LONGEST_NAME} printable characters"]}
        )
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


def mailboxes(field: str, raw: object) -> list[str]:
    """Return the mailboxes of one or many, checked; raise :class:`InvalidMessage`."""
    if raw is None or raw == "":
        return []
    many: list[object] = [raw]
    if isinstance(raw, list | set | frozenset) or (isinstance(raw, tuple) and not _is_pair(raw)):
        many = list(raw)
    if len(many) > MOST_RECIPIENTS:
        raise InvalidMessage(
            {field: [f"has {len(many)} addresses; at most {MOST_RECIPIENTS} go in one email"]}
        )
    return [mailbox(field, one) for one in many]


def _is_pair(raw: tuple[object, ...]) -> bool:
    # ("Ann", "ann@x.example") is one mailbox, ("ann@x.example", "bob@x.example") are two.
    return len(raw) == 2 and "@" not in str(raw[0]) and "@" in str(raw[1])


def headers(raw: object) -> dict[str, str]:
    """Return a caller's extra headers, checked.

    Raises :class:`InvalidMessage` for a reserved name, and for a value that would break the mail.
    """
    if raw is None:
        return {}
    if not isinstance(raw, Mapping) or len(raw) > MOST_HEADERS:
        raise InvalidMessage(
            {"headers": [f"must be a dictionary of at most {MOST_HEADERS} headers"]}
        )
    wrong = {
        f"headers.{name!s:.70}": ["has a name that is not valid, or that the email itself sets"]
        for name in raw
        if not isinstance(name, str) or not is_free_header(name)
    }
    if wrong:
        raise InvalidMessage(wrong)
    return {name: _value(f"headers.{name}", value) for name, value in raw.items()}


def _value(field: str, raw: object) -> str:
    value = header_line(field, raw, _LONGEST_VALUE)
    # A header is folded between words.
    if any(len(word) > LONGEST_WORD for word in value.split(" ")):
        raise InvalidMessage({field: [f"must have no word of more than {LONGEST_WORD} characters"]})
    return value


def recipients(groups: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return (kind, address) of all recipients of to, cc and bcc, each address once."""
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
