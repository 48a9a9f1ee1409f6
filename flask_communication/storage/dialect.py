"""SQL fragments that differ between PostgreSQL and SQLite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from sqlalchemy.engine import Connection, Engine

from ..errors import SettingError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Dialect:
    """The SQL fragments of one database.

    The outbox is SQL text, because SQLAlchemy Core would halve its speed. Only these fragments
    differ. The clock is always the database's, never the worker's.
    """

    name: str
    now: str
    skip_locked: str

    def later(self, seconds: str) -> str:
        """Return SQL for ``seconds`` from now; NULL if ``seconds`` is NULL."""
        if self.name == "postgresql":
            return f"statement_timestamp() + make_interval(secs => {seconds})"
        # SQLAlchemy stores six decimals, and SQLite's %f has three.
        return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({seconds}) || ' seconds')"

    def since(self, column: str) -> str:
        """Return SQL for the seconds since ``column``."""
        if self.name == "postgresql":
            return f"extract(epoch from statement_timestamp() - {column})::double precision"
        return f"((julianday('now') - julianday({column})) * 86400.0)"

    def rows(
        self, shape: Mapping[str, str] | type[DataclassInstance], parameter: str = "rows"
    ) -> str:
        """Write "the rows of this JSON array", so that one statement serves any number of rows.

        ``shape`` is a dataclass, or maps names to PostgreSQL types; pass the array through
        :func:`as_rows`.
        """
        columns = columns_of(shape) if isinstance(shape, type) else shape
        if self.name == "postgresql":
            typed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            return f"(SELECT * FROM json_to_recordset(CAST(:{parameter} AS json)) AS j({typed}))"
        picked = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in columns)
        return f"(SELECT {picked} FROM json_each(:{parameter}))"

    def chosen(self, column: str, parameter: str = "rows") -> str:
        """Return ``column`` is an ``id`` of :meth:`rows` AND; empty on SQLite.

        It lets PostgreSQL look the ids up in an index.
        """
        if self.name != "postgresql":
            return ""
        ids = f"SELECT j.id FROM json_to_recordset(CAST(:{parameter} AS json)) AS j(id bigint)"
        return f"{self.among(column, ids)} AND "

    def among(self, column: str, ids: str) -> str:
        """Return the condition that ``column`` is among the results of a SELECT, by an index."""
        return (
            f"{column} = ANY(ARRAY({ids}))" if self.name == "postgresql" else f"{column} IN ({ids})"
        )

    def json(self, parameter: str) -> str:
        """Return SQL for a parameter whose value is JSON text."""
        return f"CAST({parameter} AS json)" if self.name == "postgresql" else parameter

    def returning(self, *columns: str) -> str:
        """Return a RETURNING clause of these columns of the updated table ``m``."""
        # SQLite does not know the alias there.
        prefix = "m." if self.name == "postgresql" else ""
        return " RETURNING " + ", ".join(prefix + column for column in columns)

    def time(self, value: datetime) -> str:
        """Return a time in the form that this database stores."""
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") + (
            "+00" if self.name == "postgresql" else ""
        )

    def least(self, one: str, other: str) -> str:
        """Return SQL for the earlier of two times."""
        return f"{'least' if self.name == 'postgresql' else 'min'}({one}, {other})"


DIALECTS = {
    # Unlike clock_timestamp(), statement_timestamp() is stable, so an index can be used.
    "postgresql": Dialect("postgresql", "statement_timestamp()", "FOR UPDATE SKIP LOCKED"),
    # BEGIN IMMEDIATE has locked the database already: there is one writer at a time.
    "sqlite": Dialect("sqlite", "strftime('%Y-%m-%d %H:%M:%f000', 'now')", ""),
}


def as_rows(rows: Sequence[Mapping[str, Any] | DataclassInstance]) -> str:
    """Write rows, mappings or dataclasses, as the JSON text that :meth:`Dialect.rows` reads."""
    return json.dumps(rows, ensure_ascii=True, separators=(",", ":"), default=vars)


def from_json(value: object) -> Any:
    """Return a JSON column as PostgreSQL's driver does; SQLite's returns its text."""
    return json.loads(value) if isinstance(value, str) else value


_SQL_TYPES = {int: "bigint", str: "text", float: "double precision", bool: "boolean"}


@cache
def columns_of(shape: type[DataclassInstance]) -> Mapping[str, str]:
    """Return the columns that the fields of a dataclass are: name -> PostgreSQL type.

    A field's metadata ``sql`` names another type; None there leaves the field out.
    """
    hints = get_type_hints(shape)
    types = {one.name: one.metadata.get("sql", _sql_type(hints[one.name])) for one in fields(shape)}
    return {name: kind for name, kind in types.items() if kind is not None}


def _sql_type(hint: Any) -> str:
    one = next((each for each in get_args(hint) if each in _SQL_TYPES), hint)
    return _SQL_TYPES.get(one, "json")


def dialect_of(connection: Connection | Engine) -> Dialect:
    """Return the dialect of a database; raise :class:`SettingError` if it is not supported."""
    name = connection.dialect.name
    if name not in DIALECTS:
        raise SettingError(
            f"Flask-Communication keeps its messages in PostgreSQL or SQLite, not in {name}; "
            "set COMMUNICATION_DATABASE_URL to a database of one of these kinds"
        )
    return DIALECTS[name]
