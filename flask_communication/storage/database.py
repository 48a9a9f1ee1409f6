"""Transactions on the host's database, and its errors translated into this package's exceptions.

The host's ``db.session`` is used only if the caller passes it. On PostgreSQL, transactions run on
the host's engine. On an SQLite file they run on a separate engine for the same file: they need
BEGIN IMMEDIATE, WAL and full durability, and the host's engine must not be changed. An in-memory
SQLite database has one connection, so the host's engine is shared.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import MetaData, create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import DataError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import StaticPool

from ..errors import DatabaseError, InvalidQuery, NotUpgraded, SessionConflict, SettingError
from .dialect import Dialect, dialect_of

if TYPE_CHECKING:
    from flask import Flask

# What a host passes as ``session=``: a session, or Flask-SQLAlchemy's ``db.session``.
HostSession = Session | scoped_session[Any]

BUSY_TIMEOUT_MS = 15_000
_INVALID_TEXT = "a text has a NUL character or half of a surrogate pair"
_TOO_LARGE = "a number, or a time, is too large or too small for the database"
# By SQLSTATE (PostgreSQL, appendix A). None: psycopg refuses a NUL before it asks the server.
_REASONS = {
    None: _INVALID_TEXT,
    "22021": _INVALID_TEXT,
    "22P05": _INVALID_TEXT,
    "22001": "a text is longer than the column",
    "22003": _TOO_LARGE,
    "22008": _TOO_LARGE,
    "22015": _TOO_LARGE,
}
PASS_THE_SESSION = (
    "this thread's db.session has uncommitted changes on SQLite, and a second transaction would"
    " {harm}. Pass session=db.session, so that the message is sent if and only if your transaction"
    " commits, or commit first"
)


class HostDatabase(Protocol):
    """The host's Flask-SQLAlchemy object, as far as it is used here."""

    session: object
    metadata: MetaData

    @property
    def engine(self) -> Engine:
        """The engine of the default database; needs an application context."""


class Database:
    """Access to the tables for one application.

    They are in the database at ``url``, else in that of the host's ``db``, else in that of the
    Flask-SQLAlchemy which the application has when the first transaction begins.
    """

    def __init__(self, app: Flask, db: HostDatabase | None = None, url: str | None = None) -> None:
        self._app = app
        self._db = db
        self._url = url
        self._engine: Engine | None = None
        self._dialect: Dialect | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def engine(self) -> Engine:
        """The engine of all transactions but those of a caller's session."""
        if self._engine is None or self._pid != os.getpid():
            with self._lock:
                self._open()
        assert self._engine is not None
        return self._engine

    @property
    def dialect(self) -> Dialect:
        """The SQL dialect of the database."""
        if self._dialect is None:
            self._dialect = dialect_of(self.engine)
        return self._dialect

    @property
    def host(self) -> HostDatabase | None:
        """The host's Flask-SQLAlchemy object, or None."""
        found: HostDatabase | None = self._app.extensions.get("sqlalchemy")
        return self._db if self._db is not None else found

    @property
    def shares_one_connection(self) -> bool:
        """Whether this is an in-memory SQLite database, which has only one connection."""
        return _in_memory(self.engine.url)

    def _open(self) -> None:
        if self._engine is not None and self._pid != os.getpid():
            # A forked child must neither use nor close the connections of its parent.
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
        host = self.host
        if host is None:
            raise SettingError(
                "no database: give Communication(app, db) your SQLAlchemy object, or set "
                "COMMUNICATION_DATABASE_URL"
            )
        with self._app.app_context():
            try:
                return host.engine
            except Exception as failure:
                raise SettingError(
                    "the host's SQLAlchemy has no default database; set SQLALCHEMY_DATABASE_URI or "
                    "COMMUNICATION_DATABASE_URL"
                ) from failure

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction. Commit it at the end, or roll it back on an exception.

        Raises :class:`SessionConflict` where it would deadlock with, or commit, the open changes of
        this thread's ``db.session`` on SQLite; :class:`NotUpgraded` if the tables are missing.
        """
        self.refuse_conflict()
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection that only reads. It never waits for a writer."""
        lent = self._lent()
        with _translated():
            if lent is not None:
                yield lent.connection()
                return
            with self.engine.connect().execution_options(communication_reads=True) as connection:
                yield connection

    def _lent(self) -> Session | None:
        """Return this thread's open ``db.session`` on an in-memory SQLite database.

        Its connection is the only one. To give that back would undo the session's changes.
        """
        is_shared = self._url is None and self.shares_one_connection
        session = _session_in_use(self.host) if is_shared else None
        return session if session is not None and session.in_transaction() else None

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open an ORM session that only reads. Loaded objects remain usable after its end."""
        with self.read() as connection, Session(connection, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def joined(self, session: HostSession) -> Iterator[Connection]:
        """Use the caller's session: its transaction commits or rolls back what is written.

        Raises :class:`SessionConflict` if the session is bound to another database.
        """
        connection: Connection = session.connection()
        if not self._is_ours(connection.engine):
            raise SessionConflict(
                f"the session is bound to {_name(connection.engine.url)}, but the tables are in"
                f" {_name(self.engine.url)}; leave session= out, or bind it to that database"
            )
        with _translated():
            yield connection

    def _is_ours(self, engine: Engine) -> bool:
        if self.shares_one_connection:
            return engine is self.engine
        return engine.url == self.engine.url

    def refuse_conflict(self) -> None:
        """Raise :class:`SessionConflict` if ``db.session`` has uncommitted changes on SQLite.

        The session of this thread is meant. A second transaction could not commit beside it.
        """
        if self._url is not None or self.dialect.name != "sqlite":
            return
        session = _session_in_use(self.host)
        if session is not None and _holds_a_write(session):
            harm = "commit them too" if self.shares_one_connection else "never get its turn"
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


def _prepare_sqlite(dbapi: sqlite3.Connection, _record: object) -> None:
    # The driver would begin a transaction at the first write, which is too late.
    dbapi.isolation_level = None
    cursor = dbapi.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    # SQLite does not wait for this lock, and processes that start together all change a new file.
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
    # In a deferred transaction, SELECT and then UPDATE fails with "locked" or claims a row twice.
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _session_in_use(host: HostDatabase | None) -> Session | None:
    registry = getattr(getattr(host, "session", None), "registry", None)
    if registry is None or not _registry_has(registry):
        return None
    session: Session = registry()
    return session


def _registry_has(registry: Any) -> bool:
    try:
        return bool(registry.has())
    except RuntimeError:
        # There is no application context, and so no session.
        return False


def _holds_a_write(session: Session) -> bool:
    if not session.in_transaction():
        return False
    driver = session.connection().connection.driver_connection
    return bool(getattr(driver, "in_transaction", False))


@contextmanager
def _translated() -> Iterator[None]:
    """Translate database errors that the user can act on into this package's exceptions."""
    try:
        yield
    except UnicodeEncodeError as failure:
        raise InvalidQuery(_INVALID_TEXT) from failure
    except OverflowError as failure:
        # From SQLite's driver, which raises it before it runs the statement.
        if "SQLite" not in str(failure):
            raise
        raise InvalidQuery(_TOO_LARGE) from failure
    except DataError as failure:
        raise InvalidQuery(_reason(failure)) from failure
    except (OperationalError, ProgrammingError) as failure:
        said = str(failure.orig)
        if "communication_" in said and ("no such" in said or "does not exist" in said):
            raise NotUpgraded(
                "the tables are missing or old; run: flask communication upgrade"
            ) from failure
        if "database is locked" in said:
            raise DatabaseError(
                "SQLite stayed locked by another transaction; if it is your own, pass its session"
                " as session=, else commit it sooner"
            ) from failure
        raise


def _reason(failure: DataError) -> str:
    driver = failure.orig
    state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
    # The driver's own text may repeat the value, which may be a secret.
    return _REASONS.get(state, f"the database refuses a value ({type(driver).__name__}, {state})")
