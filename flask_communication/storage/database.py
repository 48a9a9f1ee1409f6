"""Our tables' base, our sessions on the host's database, and the two dialects we speak.

The host's ``db.session`` is never used, unless the caller passes it. On PostgreSQL our short
transactions run on the host's engine. On an SQLite file they run on an engine of our own for the
same file, because they need BEGIN IMMEDIATE, WAL and full durability, and the host's engine is not
ours to change. An in-memory SQLite database lives in one connection, so there we share the host's
engine.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DataError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from ..errors import DatabaseError, InvalidQuery, NotUpgraded, SessionConflict, SettingError
from .dialect import Dialect, dialect_of

if TYPE_CHECKING:
    from flask import Flask

BUSY_TIMEOUT_MS = 15_000
_NO_TEXT = "a text has a NUL character or half of a surrogate pair"
_TOO_LARGE = "a number, or a time, is too large or too small for the database"
# By SQLSTATE (PostgreSQL's appendix A); psycopg refuses a NUL by itself, and so without one.
_WORDS = {
    None: _NO_TEXT,
    "22021": _NO_TEXT,
    "22P05": _NO_TEXT,
    "22001": "a text is longer than the database keeps",
    "22003": _TOO_LARGE,
    "22008": _TOO_LARGE,
    "22015": _TOO_LARGE,
}
PASS_THE_SESSION = (
    "this thread's db.session has unsaved changes open on SQLite, and a transaction of our own "
    "would "
    "{harm}. Pass session=db.session, so that the message is sent if and only if your transaction "
    "commits, or commit first"
)


class Database:
    """One application's access to our tables: a short transaction, a read, or the caller's own."""

    def __init__(self, app: Flask, db: Any = None, url: str | None = None) -> None:
        self._app = app
        self._db = db
        self._url = url
        self._engine: Engine | None = None
        self._dialect: Dialect | None = None
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
    def dialect(self) -> Dialect:
        """How our database speaks."""
        if self._dialect is None:
            self._dialect = dialect_of(self.engine)
        return self._dialect

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
        dialect_of(host)
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
        with _explained(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that only reads, and so never waits for a writer."""
        lent = self._lent()
        with _explained():
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
        with _explained():
            yield connection

    def _is_ours(self, engine: Engine) -> bool:
        if self.shares_one_connection:
            return engine is self.engine
        return engine.url == self.engine.url

    def refuse_conflict(self) -> None:
        """Raise :class:`SessionConflict` if this thread's ``db.session`` has an open write on SQLite."""
        if self._url is not None or self.dialect.name != "sqlite":
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
    # For this lock alone SQLite does not wait: processes that start together change a new file
    # together.
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


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the database errors that a user can mend into words."""
    try:
        yield
    except UnicodeEncodeError as wrong:
        raise InvalidQuery(_NO_TEXT) from wrong
    except OverflowError as wrong:
        # SQLite's driver says so before it asks.
        if "SQLite" not in str(wrong):
            raise
        raise InvalidQuery(_TOO_LARGE) from wrong
    except DataError as wrong:
        raise InvalidQuery(_said(wrong)) from wrong
    except (OperationalError, ProgrammingError) as wrong:
        said = str(wrong.orig)
        if "communication_" in said and ("no such" in said or "does not exist" in said):
            raise NotUpgraded(
                "our tables are missing or old; run: flask communication upgrade"
            ) from wrong
        if "database is locked" in said:
            raise DatabaseError(
                "SQLite stayed locked by another transaction; if it is your own, pass its session "
                "as session=, else commit it sooner"
            ) from wrong
        raise


def _said(wrong: DataError) -> str:
    state = getattr(wrong.orig, "sqlstate", None) or getattr(wrong.orig, "pgcode", None)
    # Its own words may repeat the value, which may be a secret.
    return _WORDS.get(state, f"the database refuses a value ({type(wrong.orig).__name__}, {state})")
