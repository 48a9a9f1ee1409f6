"""What may be attached to an email: a path, bytes, an open file, or an upload."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from . import addresses, drafting
from .errors import InvalidMessage


def read(source: Any) -> tuple[bytes, str | None, str | None]:
    """Return the bytes of what was given to attach, with the name and type it has, if it has any."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), None, None
    if isinstance(source, str | os.PathLike):
        return _read_path(Path(source)), Path(source).name, None
    read = getattr(source, "read", None)
    if read is None:
        raise InvalidMessage({"file": ["must be a path, bytes, or a file opened in binary mode"]})
    content = read(drafting.LARGEST_FILE + 1)
    if not isinstance(content, bytes):
        raise InvalidMessage({"file": ["was opened as text; open it with mode 'rb'"]})
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    named = Path(name).name if isinstance(name, str) else None
    return content, named, getattr(source, "mimetype", None) or None


def _read_path(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(drafting.LARGEST_FILE + 1)
    except OSError as wrong:
        raise InvalidMessage(
            {"file": [f"cannot be read: {wrong.strerror or type(wrong).__name__}"]}
        ) from wrong


def filename(raw: str) -> str:
    """Return the last part of a name, fit for a header; raise :class:`InvalidMessage`."""
    # Whatever path it came with, of whatever system, is not ours to tell the recipient.
    name = str(raw).replace("\\", "/").rpartition("/")[2].strip()
    return addresses.line("filename", name or "attachment", 255)
