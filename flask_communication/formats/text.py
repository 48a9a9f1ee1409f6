"""What strangers wrote, read as text: whatever character set they name, and whether they use it or not."""

from __future__ import annotations

import codecs
import email.header
import re

from .headers import NOT_IN_A_LINE

# The standard library takes time with the square of it.
LONGEST_HEADER = 50_000
# These codecs are no character sets, or take time with the square of the text.
_NOT_CHARSETS = frozenset({"punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape"})
# What writers of mail mean by these names: the supersets by which browsers read them, from the
# table of the WHATWG Encoding Standard, §4.2 "Names and labels"
# (https://encoding.spec.whatwg.org/).
_LABELS = {
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "x-gbk": "gb18030",
    "gb_2312-80": "gb18030",
    "x-euc-jp": "euc_jp",
    "windows-874": "cp874",
    "iso-8859-8-i": "iso8859-8",
}
_MEANS = {
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_ENCODED = re.compile(
    r"=\?[^?\s]+\?[bq]\?[^?]*\?=(?:\s+=\?[^?\s]+\?[bq]\?[^?]*\?=)*", re.IGNORECASE
)


def decoded(content: bytes, charset: str | None, *, is_cut: bool = False) -> tuple[str, bool]:
    """Return text, and whether it is certainly what was written.

    A single wrong byte spoils no more than itself. ``is_cut``: the last character may be
    incomplete.
    """
    named = _codec(charset)
    if named in ("utf-16", "utf-32") and content[:2] not in (codecs.BOM_LE, codecs.BOM_BE):
        named += "-le"
    names = list(dict.fromkeys(one for one in (named, "utf-8") if one is not None))
    for name in names:
        text = _read(content, name, "strict", is_cut)
        if text is not None:
            return text, True
    for name in names:
        text = _read(content, name, "replace", is_cut) or ""
        wrong = text.count("\ufffd")
        if text and wrong <= len(text) - wrong - len(text.encode("ascii", "ignore")):
            return text, False
    return content.decode("cp1252", "replace"), False


def _read(content: bytes, name: str, errors: str, is_cut: bool) -> str | None:
    try:
        return codecs.getincrementaldecoder(name)(errors).decode(content, final=not is_cut)
    except (ValueError, RuntimeError):
        # RuntimeError: some codecs of the standard library stumble over what they did not expect.
        return None


def _codec(charset: str | None) -> str | None:
    label = (charset or "").strip().lower()
    try:
        name = codecs.lookup(_LABELS.get(label, label)).name
        # Others than text, such as zlib, would open what is packed.
        b" ".decode(name, "replace")
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError):
        return None
    # Where somebody names ASCII and does not keep to it, UTF-8 is the likeliest.
    return None if name in _NOT_CHARSETS or name == "ascii" else _MEANS.get(name, name)


def words(raw: str) -> str:
    """Return a header's text with its encoded words read (RFC 2047)."""
    # The standard library garbles what is beyond ASCII beside them.
    return _words(raw) if raw.isascii() else _ENCODED.sub(lambda found: _words(found[0]), raw)


def _words(raw: str) -> str:
    parts = email.header.decode_header(raw)
    return "".join(
        part if isinstance(part, str) else decoded(part, charset)[0] for part, charset in parts
    )


def recoded(text: str) -> str:
    """Read bytes that came as surrogates."""
    try:
        return text if text.isascii() else decoded(text.encode("ascii", "surrogateescape"), None)[0]
    except UnicodeEncodeError:
        return storable(text)


def storable(text: str) -> str:
    """Return text that any database takes: no NUL, no lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def line(text: str) -> str:
    """Return text on one line, without controls and marks that turn it.

    What joins letters stays.
    """
    shown = NOT_IN_A_LINE.sub(
        lambda found: " " if found[0] < "\u202a" else "", text[:LONGEST_HEADER]
    )
    return re.sub(" {2,}", " ", shown).strip()


def clean(said: str, limit: int = 500) -> str:
    """Return outside text fit for a row and a log: no control characters, no surrogates, not long."""
    if isinstance(said, str) and len(said) <= limit and said.isascii() and said.isprintable():
        return said
    printable = "".join(sign if sign.isprintable() else " " for sign in str(said)[: limit * 2])
    return printable.encode("utf-8", "replace").decode("utf-8")[:limit]
