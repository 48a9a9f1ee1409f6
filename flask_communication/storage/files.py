"""Files, stored once by their content however many messages carry them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cache

from sqlalchemy import TextClause, select, text
from sqlalchemy.engine import Connection

from .dialect import Dialect, dialect_of
from .models import StoredFile

# Those that many mails carry are kept in memory, up to so many bytes.
CACHE = 64 * 1024 * 1024


def sha256(content: bytes) -> str:
    """Return the name under which these bytes are stored."""
    return hashlib.sha256(content).hexdigest()


def store(connection: Connection, contents: Iterable[bytes]) -> None:
    """Store bytes that are not stored yet."""
    # In one order for everybody, or two transactions with the same files could wait for each other.
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
    """The contents of files, read from the database once while they are in use."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def get(self, connection: Connection, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of these files."""
        wanted = set(names)
        found = {name: self._kept[name] for name in wanted & set(self._kept)}
        missing = wanted - set(found)
        if missing:
            rows = connection.execute(
                select(StoredFile.sha256, StoredFile.content).where(StoredFile.sha256.in_(missing))
            )
            found |= {name: bytes(content) for name, content in rows}
        for name in wanted & set(found):
            self._keep(name, found[name])
        return found

    def _keep(self, name: str, content: bytes) -> None:
        if name not in self._kept:
            self._size += len(content)
        self._kept[name] = content
        self._kept.move_to_end(name)
        while self._size > CACHE:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)
