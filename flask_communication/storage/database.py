"""Our tables' base, our sessions on the host's database, and the two dialects we speak.

The host's ``db.session`` is never used, unless the caller passes it. On PostgreSQL our short
transactions run on the host's engine. On an SQLite file they run on an engine of our own for the same
file, because they need BEGIN IMMEDIATE, WAL and full durability, and the host's engine is not ours to
change. An in-memory SQLite database lives in one connection, so there we share the host's engine.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import DateTime, MetaData, create_engine, event
from sqlalchemy.engine import URL, Connection, Dialect, Engine, make_url
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import StaticPool
from sqlalchemy.types import TypeDecorator

from ..errors import SessionConflict, SettingError
from . import complaints

if TYPE_CHECKING:
    from flask import Flask

BUSY_TIMEOUT_MS = 15_000
PASS_THE_SESSION = (
    "this thread's db.session has unsaved changes open on SQLite, and a transaction of our own would "
    "{harm}. Pass session=db.session, so that the message is sent if and only if your transaction "
    "commits, or commit first"
)


class Base(DeclarativeBase):
    """The declarative base of our tables; it has its own MetaData, apart from the host's."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC time: ``timestamptz`` on PostgreSQL, sortable text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times, which would mean another moment on every machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone; use datetime.now(timezone.utc)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


@dataclass(frozen=True)
class Speech:
    """How one database says what the other says otherwise; fragments of SQL text.

    The outbox is written as SQL text because Core costs it half of its speed; these few fragments are
    all that differs. The clock is always the database's, never the worker's.
    """

    name: str
    now: str
    skip_locked: str

    def later(self, seconds: str) -> str:
        """Say "``seconds`` from now", NULL if ``seconds`` is NULL."""
        if self.name == "postgresql":
            return f"statement_timestamp() + make_interval(secs => {seconds})"
        # SQLAlchemy stores six digits; SQLite's %f gives three.
        return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', ({seconds}) || ' seconds')"

    def since(self, column: str) -> str:
        """Say "seconds since ``column``"."""
        if self.name == "postgresql":
            return f"extract(epoch from statement_timestamp() - {column})::double precision"
        return f"((julianday('now') - julianday({column})) * 86400.0)"

    def rows(self, columns: Mapping[str, str], parameter: str = "rows") -> str:
        """Say "the rows of this JSON array", so that one statement serves any number of rows.

        ``columns`` maps names to PostgreSQL types; pass the array through :func:`as_rows`.
        """
        if self.name == "postgresql":
            typed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            return f"(SELECT * FROM json_to_recordset(CAST(:{parameter} AS json)) AS j({typed}))"
        picked = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in columns)
        return f"(SELECT {picked} FROM json_each(:{parameter}))"

    def chosen(self, column: str, parameter: str = "rows") -> str:
        """Say "``column`` is an ``id`` of :meth:`rows`, and", so that PostgreSQL looks the ids up."""
        if self.name != "postgresql":
            return ""
        ids = f"SELECT j.id FROM json_to_recordset(CAST(:{parameter} AS json)) AS j(id bigint)"
        return f"{self.among(column, ids)} AND "

    def among(self, column: str, ids: str) -> str:
        """Say "``column`` is one of what this SELECT returns", so that each is looked up."""
        return f"{column} = ANY(ARRAY({ids}))" if self.name == "postgresql" else f"{column} IN ({ids})"

    def json(self, parameter: str) -> str:
        """Say "the JSON text that this parameter is"."""
        return f"CAST({parameter} AS json)" if self.name == "postgresql" else parameter

    def returning(self, *columns: str) -> str:
        """Say "return these columns of the updated table ``m``"."""
        # SQLite knows only that table there, and not by its alias.
        prefix = "m." if self.name == "postgresql" else ""
        return " RETURNING " + ", ".join(prefix + column for column in columns)

    def time(self, value: datetime) -> str:
        """Write a moment as this database stores it."""
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") + (
            "+00" if self.name == "postgresql" else ""
        )

    def least(self, one: str, other: str) -> str:
        """Say "the earlier of two moments"."""
        return f"{'least' if self.name == 'postgresql' else 'min'}({one}, {other})"


SPEECHES = {
    # statement_timestamp(), unlike clock_timestamp(), is stable, and so may be looked up in an index.
    "postgresql": Speech("postgresql", "statement_timestamp()", "FOR UPDATE SKIP LOCKED"),
    # One writer at a time: BEGIN IMMEDIATE has locked everything already.
    "sqlite": Speech("sqlite", "strftime('%Y-%m-%d %H:%M:%f000', 'now')", ""),
}


def as_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows for :meth:`Speech.rows`."""
    return json.dumps(rows, ensure_ascii=True, separators=(",", ":"))


def speech_of(connection: Connection | Engine) -> Speech:
    """Return the dialect's speech; raise :class:`SettingError` for a database we do not support."""
    name = connection.dialect.name
    if name not in SPEECHES:
        raise SettingError(
            f"Flask-Communication keeps its messages in PostgreSQL or SQLite, not in {name}; "
            "set COMMUNICATION_DATABASE_URL to a database of one of these kinds"
        )
    return SPEECHES[name]


class Database:
    """One application's access to our tables: a short transaction, a read, or the caller's own."""

    def __init__(self, app: Flask, db: Any = None, url: str | None = None) -> None:
        self._app = app
        self._db = db
        self._url = url
        self._engine: Engine | None = None
        self._speech: Speech | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def engine(self) -> Engine:
        """The engine our own transactions use."""
        if self._engine is None or self._pid != os.getpid():
            with self._lock:
                self._open()
        assert self._engine is not None
        return self._engine

    @property
    def speech(self) -> Speech:
        """How our database speaks."""
        if self._speech is None:
            self._speech = speech_of(self.engine)
        return self._speech

    @property
    def host(self) -> Any:
        """The host's Flask-SQLAlchemy object, or None."""
        return self._db if self._db is not None else self._app.extensions.get("sqlalchemy")

    @property
    def shares_one_connection(self) -> bool:
        """Whether this is an in-memory SQLite database, which has only one connection."""
        return _in_memory(self.engine.url)

    def _open(self) -> None:
        if self._engine is not None and self._pid != os.getpid():
            # A forked child must not talk over its parent's sockets, nor close them.
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        if self._engine is None:
            self._engine = self._make()

    def _make(self) -> Engine:
        if self._url is not None:
            return _own_engine(make_url(self._url))
        host = self._host_engine()
        speech_of(host)
        if host.dialect.name == "sqlite" and not _in_memory(host.url):
            return _own_engine(host.url)
        return host

    def _host_engine(self) -> Engine:
        if self.host is None:
            raise SettingError(
                "no database: give Communication(app, db) your SQLAlchemy object, or set "
                "COMMUNICATION_DATABASE_URL"
            )
        with self._app.app_context():
            try:
                engine: Engine = self.host.engine
            except Exception as wrong:
                raise SettingError(
                    "the host's SQLAlchemy has no default database; set SQLALCHEMY_DATABASE_URI or "
                    "COMMUNICATION_DATABASE_URL"
                ) from wrong
        return engine

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction of our own; commit at the end, roll back on an exception.

        Raises :class:`SessionConflict` where it would deadlock with, or commit, what this thread's
        ``db.session`` holds open on SQLite; :class:`NotUpgraded` when our tables are missing.
        """
        self.refuse_conflict()
        with complaints.explained(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that only reads, and so never waits for a writer."""
        lent = self._lent()
        with complaints.explained():
            if lent is not None:
                yield lent.connection()
                return
            with self.engine.connect().execution_options(communication_reads=True) as connection:
                yield connection

    def _lent(self) -> Session | None:
        """This thread's ``db.session``, where giving back its one connection would undo its changes."""
        is_shared = self._url is None and self.shares_one_connection
        session = _session_in_use(self.host) if is_shared else None
        return session if session is not None and session.in_transaction() else None

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open an ORM session that only reads; what it loads stays usable afterwards."""
        with self.read() as connection, Session(connection, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def joined(self, session: Any) -> Iterator[Connection]:
        """Use the caller's session: what is written stands or falls with its transaction.

        Raises :class:`SessionConflict` if it is bound to another database than our tables.
        """
        connection: Connection = session.connection()
        if not self._is_ours(connection.engine):
            raise SessionConflict(
                f"the session is bound to {_name(connection.engine.url)}, our tables are in "
                f"{_name(self.engine.url)}; leave session= out, or bind it to our database"
            )
        with complaints.explained():
            yield connection

    def _is_ours(self, engine: Engine) -> bool:
        if self.shares_one_connection:
            return engine is self.engine
        return engine.url == self.engine.url

    def refuse_conflict(self) -> None:
        """Raise :class:`SessionConflict` if this thread's ``db.session`` has an open write on SQLite."""
        if self._url is not None or self.speech.name != "sqlite":
            return
        session = _session_in_use(self.host)
        if session is not None and _holds_a_write(session):
            harm = "commit them too" if self.shares_one_connection else "wait for them for ever"
            raise SessionConflict(PASS_THE_SESSION.format(harm=harm))


def _in_memory(url: URL) -> bool:
    if url.get_backend_name() != "sqlite":
        return False
    return not url.database or ":memory:" in url.database or url.query.get("mode") == "memory"


def _name(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _own_engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False}}
    if _in_memory(url):
        options["poolclass"] = StaticPool
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(dbapi: Any, record: Any) -> None:
    # The driver's own transactions begin too late (at the first write), so it gets none.
    dbapi.isolation_level = None
    cursor = dbapi.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    # For this lock alone SQLite does not wait: processes that start together change a new file together.
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("communication_reads", False)
    # SELECT-then-UPDATE in a deferred transaction claims rows twice, or fails with "locked".
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _session_in_use(host: Any) -> Session | None:
    registry = getattr(getattr(host, "session", None), "registry", None)
    if registry is None or not _registry_has(registry):
        return None
    session: Session = registry()
    return session


def _registry_has(registry: Any) -> bool:
    try:
        return bool(registry.has())
    except RuntimeError:
        # No application context: Flask-SQLAlchemy's session belongs to one.
        return False


def _holds_a_write(session: Session) -> bool:
    if not session.in_transaction():
        return False
    driver = session.connection().connection.driver_connection
    return bool(getattr(driver, "in_transaction", False))


__all__ = ["Base", "Database", "Speech", "UTCDateTime", "as_rows", "speech_of"]
