"""Files of emails: each content is stored once, under its SHA-256."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cache

from sqlalchemy import TextClause, select, text
from sqlalchemy.engine import Connection

from .dialect import Dialect, dialect_of
from .models import StoredFile

# Bytes of file contents that a worker caches.
CACHE = 64 * 1024 * 1024


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a content, which is its key."""
    return hashlib.sha256(content).hexdigest()


def store(connection: Connection, contents: Iterable[bytes]) -> None:
    """Store the contents that are not stored yet."""
    # Sorted, or two transactions with the same files could deadlock.
    unique = sorted({sha256(content): content for content in contents}.items())
    known = _known_files(connection, [name for name, _ in unique])
    for name, content in unique:
        if name not in known:
            connection.execute(
                _insert_file(dialect_of(connection)),
                {"sha256": name, "size": len(content), "content": content},
            )


def _known_files(connection: Connection, names: Sequence[str]) -> set[str]:
    if not names:
        return set()
    return set(connection.scalars(select(StoredFile.sha256).where(StoredFile.sha256.in_(names))))


@cache
def _insert_file(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_file (sha256, size, content, created_at)"
        f" VALUES (:sha256, :size, :content, {dialect.now}) ON CONFLICT (sha256) DO NOTHING"
    )


class Files:
    """A cache of file contents, least recently used first out."""

    def __init__(self) -> None:
        self._cached: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def get(self, connection: Connection, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of these files, by SHA-256."""
        wanted = set(names)
        found = {name: self._cached[name] for name in wanted & set(self._cached)}
        missing = wanted - set(found)
        if missing:
            rows = connection.execute(
                select(StoredFile.sha256, StoredFile.content).where(StoredFile.sha256.in_(missing))
            )
            found |= {name: bytes(content) for name, content in rows}
        for name in wanted & set(found):
            self._remember(name, found[name])
        return found

    def _remember(self, name: str, content: bytes) -> None:
        if name not in self._cached:
            self._size += len(content)
        self._cached[name] = content
        self._cached.move_to_end(name)
        while self._size > CACHE:
            _, dropped = self._cached.popitem(last=False)
            self._size -= len(dropped)
