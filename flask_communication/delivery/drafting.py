"""What every message is checked for when it is accepted, whatever its channel."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import InvalidMessage
from ..providers.base import File
from ..storage.models import PRIORITIES

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


def options(given: Mapping[str, Any], lifetime: float) -> dict[str, Any]:
    """Return the columns that OPTIONS become; raise :class:`InvalidMessage`."""
    send_at = moment("send_at", given.get("send_at"))
    return {
        "priority": _priority(given.get("priority") or "normal"),
        "send_at": send_at,
        "expires_at": _expiry(send_at, moment("expires_at", given.get("expires_at")), lifetime),
        "lifetime": lifetime,
        "idempotency_key": line("idempotency_key", given.get("idempotency_key"), MAX_KEY),
        "meta": _metadata(given.get("metadata")),
    }


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


def key(raw: Any) -> str | int | None:
    """Return what names a configuration, or None; raise :class:`InvalidMessage`."""
    if raw is None or (isinstance(raw, str | int) and not isinstance(raw, bool)):
        return raw
    raise InvalidMessage({"key": ["must be the key or the id of a configuration"]})


def _priority(raw: Any) -> int:
    if raw not in PRIORITIES:
        raise InvalidMessage({"priority": [f"must be one of {', '.join(PRIORITIES)}"]})
    return PRIORITIES[raw]


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


def _expiry(
    send_at: datetime | None, expires_at: datetime | None, lifetime: float
) -> datetime | None:
    if expires_at is None:
        return send_at and send_at + timedelta(seconds=lifetime)
    if expires_at <= (send_at or datetime.now(UTC)):
        raise InvalidMessage({"expires_at": ["must be later than send_at, and not in the past"]})
    return expires_at


def _metadata(raw: Any) -> dict[str, Any] | None:
    if raw is None:
        return None
    try:
        text = json.dumps(raw, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidMessage({"metadata": ["must be a dictionary that JSON can carry"]}) from None
    if (
        not isinstance(raw, Mapping)
        or len(text) > MAX_METADATA
        or "\\u0000" in text
        or "\\ud" in text
    ):
        raise InvalidMessage(
            {
                "metadata": [
                    f"must be a dictionary of at most {MAX_METADATA} characters of valid JSON"
                ]
            }
        )
    return dict(raw)
