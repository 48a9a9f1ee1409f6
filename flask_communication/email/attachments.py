"""Read and check the attachments of an email: a path, bytes, an open file, or an upload."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InvalidMessage
from ..formats.files import LARGEST_FILE, LONGEST_FILENAME, File, checked_file
from ..formats.text import header_line

MOST_FILES = 50
# Bytes of one email: in base64 they are what common servers take (Gmail: 25 MB).
LARGEST_EMAIL = 18 * 1024 * 1024


def read(source: object) -> tuple[bytes, str | None, str | None]:
    """Return the bytes of a source, and its name and content type if it has them."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), None, None
    if isinstance(source, str | os.PathLike):
        return _read(lambda: _read_path(Path(source))), Path(source).name, None
    read = getattr(source, "read", None)
    if read is None:
        raise InvalidMessage({"file": ["must be a path, bytes, or a file opened in binary mode"]})
    content = _read(lambda: read(LARGEST_FILE + 1))
    if not isinstance(content, bytes):
        raise InvalidMessage({"file": ["was opened as text; open it with mode 'rb'"]})
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    named = Path(name).name if isinstance(name, str) else None
    return content, named, getattr(source, "mimetype", None) or None


def _read_path(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_FILE + 1)


def _read(reading: Callable[[], object]) -> Any:
    try:
        return reading()
    # A closed file and a path with a NUL are ValueErrors.
    except (OSError, ValueError) as wrong:
        why = getattr(wrong, "strerror", None) or f"{wrong!s:.200}" or type(wrong).__name__
        raise InvalidMessage({"file": [f"cannot be read: {why}"]}) from wrong


def content_type(name: str, given: str | None) -> str:
    """Return the content type of a file: the given one, or that of its name."""
    found = given or mimetypes.guess_type(name)[0] or "application/octet-stream"
    # A mail within a mail may not be encoded (RFC 2046 §5.2.1), so it travels as a plain file.
    return "application/octet-stream" if found.lower().startswith("message/") else found


def checked(files: Any) -> tuple[File, ...]:
    """Return the files of one email, checked.

    Raises :class:`InvalidMessage` for too many and for too large ones.
    """
    if not isinstance(files, list | tuple) or not all(isinstance(one, File) for one in files):
        raise InvalidMessage({"files": ["are added with attach()"]})
    if len(files) > MOST_FILES:
        raise InvalidMessage({"files": [f"at most {MOST_FILES} files go in one email"]})
    size = sum(len(one.content) for one in files)
    if size > LARGEST_EMAIL:
        raise InvalidMessage(
            {"files": [f"have {size} bytes; at most {LARGEST_EMAIL} go in one email"]}
        )
    return tuple(checked_file(one) for one in files)


def filename(raw: str) -> str:
    """Return a file's name without folders; raise :class:`InvalidMessage`."""
    # The recipient need not learn the path, of whatever system it is.
    name = str(raw).replace("\\", "/").rpartition("/")[2].strip()
    return header_line("filename", name or "attachment", LONGEST_FILENAME)
