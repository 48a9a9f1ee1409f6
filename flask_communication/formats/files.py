"""Files of an email: their names, content types and Content-IDs (RFC 2045, RFC 2392)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..errors import InvalidMessage
from .text import one_line

# Bytes of one file.
LARGEST_FILE = 10 * 1024 * 1024
LONGEST_CONTENT_TYPE = 127
LONGEST_CONTENT_ID = 255
LONGEST_FILENAME = 255
_LONGEST_EXTENSION = 19
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,80}"
_CONTENT_TYPE = re.compile(
    rf"{_TOKEN}/{_TOKEN}(?:; ?{_TOKEN}=(?:{_TOKEN}|\"[ !#-\[\]-~]{{0,80}}\")){{0,5}}"
)
# ASCII, because RFC 2392 puts it into an address (cid:).
_CONTENT_ID = re.compile(rf"[!-;=?-~]{{1,{LONGEST_CONTENT_ID}}}")
# Bidirectional controls: with one, "exe.gpj" is displayed as "jpg.exe".
_BIDI_CONTROLS = dict.fromkeys(
    map(ord, "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
)


@dataclass(frozen=True)
class File:
    """A file of an email; with ``content_id`` the HTML shows it in place (cid:)."""

    filename: str
    content_type: str
    content: bytes = field(repr=False)
    content_id: str | None = None


def is_content_type(text: str) -> bool:
    """Tell whether this is a content type, with or without parameters, in one line."""
    return len(text) <= LONGEST_CONTENT_TYPE and _CONTENT_TYPE.fullmatch(text) is not None


def is_content_id(text: str) -> bool:
    """Tell whether this is a Content-ID without its angle brackets."""
    return _CONTENT_ID.fullmatch(text) is not None


def checked_file(file: File) -> File:
    """Return a file that may be attached; raise :class:`InvalidMessage`."""
    if len(file.content) > LARGEST_FILE:
        raise InvalidMessage({"file": [f"{file.filename} is larger than {LARGEST_FILE} bytes"]})
    # A multipart type has a boundary, which only the writer of its content knows.
    kind = file.content_type
    if not is_content_type(kind) or kind.lower().startswith("multipart/"):
        raise InvalidMessage(
            {"content_type": [f"must be such as image/png, and not {kind[:50]!r}"]}
        )
    if file.content_id is not None and not is_content_id(file.content_id):
        raise InvalidMessage(
            {"inline": ["must be an ASCII name without spaces and angle brackets"]}
        )
    return file


def tidy_filename(raw: str) -> str:
    """Return a file's name without folders, control characters and bidirectional controls.

    "" if nothing is left.
    """
    last = one_line(raw.replace("\\", "/")).rstrip("/").rpartition("/")[2]
    last = last.translate(_BIDI_CONTROLS).strip(" .")
    if not any(sign.isprintable() and not sign.isspace() for sign in last):
        return ""
    if len(last) <= LONGEST_FILENAME:
        return last
    stem, dot, extension = last.rpartition(".")
    if not dot:
        return last[:LONGEST_FILENAME]
    return f"{stem[: LONGEST_FILENAME - _LONGEST_EXTENSION - 1]}.{extension[:_LONGEST_EXTENSION]}"
