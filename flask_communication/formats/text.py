"""Check, clean and decode text: one line, any database, any character set (WHATWG, RFC 2047)."""

from __future__ import annotations

import codecs
import email.header
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import webencodings

from ..errors import InvalidMessage

# Characters of the text, or of the HTML, of one email.
LONGEST_TEXT = 1024 * 1024
# The standard library takes time with the square of a header's length.
LONGEST_HEADER = 50_000
# Of a provider's or a mail server's words that are stored or logged.
LONGEST_REASON = 500
LONGEST_QUOTE = 200
_MASK = "********"
# A shorter string is no secret, and to mask it would make the text unreadable.
_SHORTEST_SECRET = 6

# Controls, ends of lines, bidirectional controls, surrogates, and noncharacters (Unicode §23.7).
# A code point that this Python does not know may be a new emoji, so it is allowed.
_NONCHARACTERS = "".join(
    chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)
)
_NOT_IN_A_LINE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef"
    + _NONCHARACTERS
    + "]"
)
_BIDI_CONTROLS_BEGIN = "\u202a"


# --- Check what a caller gives


def multiline(name: str, raw: object, limit: int) -> str:
    """Return a text of any number of lines; raise :class:`InvalidMessage`."""
    if not isinstance(raw, str) or len(raw) > limit:
        raise InvalidMessage({name: [f"must be a text of at most {limit} characters"]})
    storable(name, raw)
    return raw


def storable(name: str, text: str) -> None:
    """Raise :class:`InvalidMessage` for a text that no database can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidMessage({name: ["has half of a surrogate pair; send valid Unicode"]}) from None
    if "\x00" in text:
        raise InvalidMessage({name: ["has a NUL character; remove it"]})


def line(name: str, raw: object, limit: int) -> str | None:
    """Return one printable line, or None for None; raise :class:`InvalidMessage`."""
    if raw is None:
        return None
    if not isinstance(raw, str) or not 1 <= len(raw) <= limit or not raw.isprintable():
        raise InvalidMessage({name: [f"must be 1 to {limit} printable characters on one line"]})
    return raw


def header_line(name: str, raw: object, limit: int) -> str:
    """Return a text that fits into one email header; raise :class:`InvalidMessage`.

    It may be empty, and have what people write: emoji, joiners, hard spaces.
    """
    if not isinstance(raw, str) or len(raw) > limit or not is_line(raw):
        raise InvalidMessage({name: [f"must be one line of at most {limit} printable characters"]})
    return raw


def is_line(text: str) -> bool:
    """Tell whether a text is one line without control characters."""
    return _NOT_IN_A_LINE.search(text) is None


def moment(name: str, raw: object) -> datetime | None:
    """Return a time in UTC, or None for None; raise :class:`InvalidMessage`."""
    if raw is None:
        return None
    if not isinstance(raw, datetime) or raw.tzinfo is None:
        raise InvalidMessage({name: ["must be a datetime with a time zone"]})
    try:
        return raw.astimezone(UTC)
    except OverflowError:
        raise InvalidMessage({name: ["is out of range"]}) from None


# --- Clean what a provider or a mail server sent


def clean(raw: object, limit: int = LONGEST_REASON) -> str:
    """Return outside text for a row or a log: printable, valid Unicode, at most ``limit`` long."""
    if isinstance(raw, str) and len(raw) <= limit and raw.isascii() and raw.isprintable():
        return raw
    printable = "".join(sign if sign.isprintable() else " " for sign in str(raw)[: limit * 2])
    return printable.encode("utf-8", "replace").decode("utf-8")[:limit]


def mask(text: str, config: Mapping[str, object] | None = None) -> str:
    """Return a text from outside as one short printable line, without the strings of ``config``.

    All strings of the configuration are masked, whether they are secrets or not.
    """
    for one in sorted(_strings(config or {}), key=len, reverse=True):
        text = text.replace(one, _MASK)
    return " ".join(clean(text, 4 * LONGEST_QUOTE).split())[:LONGEST_QUOTE]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) >= _SHORTEST_SECRET:
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def one_line(text: str) -> str:
    """Return a header's text on one line, without control characters.

    Emoji and the joiners between letters stay.
    """
    shown = _NOT_IN_A_LINE.sub(
        lambda found: " " if found[0] < _BIDI_CONTROLS_BEGIN else "", text[:LONGEST_HEADER]
    )
    return re.sub(" {2,}", " ", shown).strip()


def make_storable(text: str) -> str:
    """Replace what no database holds: NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


# --- Decode what a mail brings

# Python's codecs of these names are no character sets, or are slow on long input.
_NOT_CHARSETS = frozenset({"punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape"})
# Adjacent encoded words; the standard library garbles what is not ASCII beside them.
_ENCODED_WORDS = re.compile(
    r"=\?[^?\s]+\?[bq]\?[^?]*\?=(?:\s+=\?[^?\s]+\?[bq]\?[^?]*\?=)*", re.IGNORECASE
)


def decode(content: bytes, charset: str | None, *, is_cut: bool = False) -> tuple[str, bool]:
    """Return the text, and whether ``charset`` or UTF-8 decodes all of it.

    A wrong byte spoils no more than itself. ``is_cut``: the last character may be incomplete.
    """
    names = _codecs(content, charset)
    for name in names:
        text = _decoded(content, name, "strict", is_cut)
        if text is not None:
            return text, True
    for name in names:
        text = _decoded(content, name, "replace", is_cut) or ""
        wrong = text.count("\ufffd")
        if text and wrong <= len(text) - wrong - len(text.encode("ascii", "ignore")):
            return text, False
    return content.decode("cp1252", "replace"), False


def _codecs(content: bytes, charset: str | None) -> list[str]:
    """Return the codecs to try, the likeliest first."""
    named = _codec(charset)
    names = ["utf-8"] if named is None else [named, "utf-8"]
    if named in ("utf-16-le", "utf-16-be"):
        if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            # Python's "utf-16" obeys the byte order mark, and drops it.
            return ["utf-16", "utf-8"]
        if b"\0" not in content:
            # A space or a line end of UTF-16 has a NUL, so this is mislabelled UTF-8.
            names.reverse()
    return list(dict.fromkeys(names))


def _decoded(content: bytes, name: str, errors: str, is_cut: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder(name)(errors).decode(content, final=not is_cut)
    except (ValueError, RuntimeError):
        # Some of Python's codecs raise RuntimeError for unexpected input.
        return None


def _codec(charset: str | None) -> str | None:
    """Return the codec that browsers use for a label, else Python's own; None for neither.

    None for ASCII, too: what is not ASCII in such a mail is UTF-8 most of the time.
    """
    label = (charset or "").strip()
    python = _python_codec(label)
    if python == "ascii":
        return None
    name = _whatwg_codec(label) or _whatwg_codec((python or "").replace("_", "-")) or python
    return None if name in _NOT_CHARSETS else name


def _python_codec(label: str) -> str | None:
    try:
        name = codecs.lookup(label).name
        # LookupError for what is no text encoding: zlib would decompress.
        b" ".decode(name, "replace")
        codecs.getincrementaldecoder(name)
        return name
    except (LookupError, ValueError):
        return None


def _whatwg_codec(label: str) -> str | None:
    try:
        found = webencodings.lookup(label)
    except ValueError:
        return None
    if found is None or found.name in ("replacement", "x-user-defined"):
        return None
    # The standard decodes both in the same way (§10.1.1).
    return "gb18030" if found.name == "gbk" else str(found.codec_info.name)


def decode_words(raw: str) -> str:
    """Return a header's text with its encoded words decoded (RFC 2047)."""
    if raw.isascii():
        return _decode_words(raw)
    return _ENCODED_WORDS.sub(lambda found: _decode_words(found[0]), raw)


def _decode_words(raw: str) -> str:
    parts = email.header.decode_header(raw)
    return "".join(
        part if isinstance(part, str) else decode(part, charset)[0] for part, charset in parts
    )


def decode_surrogates(text: str) -> str:
    """Decode the 8-bit bytes that the standard library's parser keeps as surrogates."""
    try:
        return text if text.isascii() else decode(text.encode("ascii", "surrogateescape"), None)[0]
    except UnicodeEncodeError:
        return make_storable(text)
