"""What every message is checked for when it is accepted, whatever its channel."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from ..errors import InvalidMessage
from ..providers.base import File

# What may be said of any message besides what it says itself.
OPTIONS = ("send_at", "expires_at", "idempotency_key", "priority", "metadata")
MAX_KEY = 255
MAX_METADATA = 10_000
LARGEST_FILE = 10 * 1024 * 1024
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,80}"
_TYPE = re.compile(
    rf"{_TOKEN}/{_TOKEN}(?:; ?{_TOKEN}=(?:{_TOKEN}|\"[ !#-\[\]-~]{{0,80}}\")){{0,5}}"
)
LONGEST_TYPE = 127
# RFC 2392 has it in an address, so it is ASCII.
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,255}")


def text(name: str, raw: Any, limit: int) -> str:
    """Return a text of any number of lines; raise :class:`InvalidMessage`."""
    if not isinstance(raw, str) or len(raw) > limit:
        raise InvalidMessage({name: [f"must be a text of at most {limit} characters"]})
    storable(name, raw)
    return raw


def checked_file(file: File) -> File:
    """Return a file that may be attached; raise :class:`InvalidMessage`."""
    if len(file.content) > LARGEST_FILE:
        raise InvalidMessage({"file": [f"{file.filename} is larger than {LARGEST_FILE} bytes"]})
    # The boundaries of a multipart type are its writer's business.
    kind = file.content_type
    if (
        len(kind) > LONGEST_TYPE
        or not _TYPE.fullmatch(kind)
        or kind.lower().startswith("multipart/")
    ):
        raise InvalidMessage(
            {"content_type": [f"must be such as image/png, and not {kind[:50]!r}"]}
        )
    if file.content_id is not None and not _CONTENT_ID.fullmatch(file.content_id):
        raise InvalidMessage(
            {"inline": ["must be an ASCII name without spaces and angle brackets"]}
        )
    return file


def storable(name: str, text: str) -> None:
    """Raise :class:`InvalidMessage` for a text that no database can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidMessage({name: ["has half of a surrogate pair; send valid Unicode"]}) from None
    if "\x00" in text:
        raise InvalidMessage({name: ["has a NUL character"]})


def line(name: str, raw: Any, limit: int) -> str | None:
    """Return one printable line, or None; raise :class:`InvalidMessage`."""
    if raw is None:
        return None
    if not isinstance(raw, str) or not 1 <= len(raw) <= limit or not raw.isprintable():
        raise InvalidMessage({name: [f"must be 1 to {limit} printable characters on one line"]})
    return raw


def moment(name: str, raw: Any) -> datetime | None:
    """Return an aware moment in UTC, or None; raise :class:`InvalidMessage`."""
    if raw is None:
        return None
    if not isinstance(raw, datetime) or raw.tzinfo is None:
        raise InvalidMessage({name: ["must be a datetime with a time zone"]})
    try:
        return raw.astimezone(UTC)
    except OverflowError:
        raise InvalidMessage({name: ["is out of range"]}) from None
