"""Mailboxes: whose turn it is to be read, how far they have been read, and what went wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from ..configs import routes as routing
from ..configs.routes import Route, Routes
from ..configs.state import State
from ..delivery.reports import SyncResult
from ..errors import InvalidQuery, NotSent, ProviderError
from ..formats.text import clean
from ..providers.base import Inbox
from ..signals import announce
from ..storage.crashpoints import crash_point
from ..storage.dialect import Dialect, dialect_of
from . import incoming
from .incoming import Arrival

log = logging.getLogger(__name__)

# Mails that are asked for, and stored, together.
BATCH = 100
# Who reads a mailbox has it for so long after each batch; then somebody else may.
LEASE = 120.0
AFTER_TROUBLE = 300.0
# What a database or its driver says of values; not that it is away.
_UNSTORABLE = (DataError, IntegrityError, ProgrammingError, TypeError, ValueError)
# A provider that has no inbox may have learned to read one by then.
AFTER_NONE = 3600.0


@dataclass
class Reading:
    """A mailbox that this process is reading; ``turn`` proves that nobody else has it since."""

    state: State
    route: Route
    cursor: dict[str, Any]
    turn: Any
    fetched: int = 0
    came: int = 0

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Read all that is new; return whether there is more, because of ``stop`` or another reader.

        Raises :class:`ProviderError` when the mailbox could not be read to its end.
        """
        try:
            while self._read_some():
                if stop():
                    self.leave(0.0, None)
                    return True
        except ProviderError as failure:
            self.leave(AFTER_TROUBLE, failure.reason)
            raise
        return not self.leave(self.state.settings.inbox_every or AFTER_NONE, None)

    def _read_some(self) -> bool:
        found = self._fetch()
        crash_point("inbox.fetched")
        before = self.cursor
        arrivals = [incoming.opened(self.route.config_id, mail) for mail in found.mails]
        moved = self._file(arrivals, dict(found.cursor))
        if moved is None:
            log.info("somebody else reads the mailbox of %s", self.route.name)
            return False
        crash_point("inbox.filed")
        self.fetched += len(arrivals)
        self.came += sum(1 for one in moved if one["status"] == "received")
        announce(self.state.app, moved)
        # A provider that always says "more" and brings nothing is not asked for ever.
        return found.more and (bool(arrivals) or dict(found.cursor) != before)

    def _fetch(self) -> Inbox:
        assert self.route.provider is not None
        try:
            with self.route.guarded():
                return self.route.provider.fetch_inbox(self.cursor, BATCH, self.route.config)
        except ProviderError:
            raise
        except Exception as failure:
            log.exception("the inbox of %s failed in an unforeseen way", self.route.name)
            raise NotSent(
                f"the provider failed in an unforeseen way: {type(failure).__name__}"
            ) from failure

    def _file(
        self, arrivals: Sequence[Arrival], cursor: dict[str, Any]
    ) -> list[dict[str, Any]] | None:
        """Store mails together with how far we are.

        None if the mailbox is somebody else's by now.
        """
        try:
            return self._commit(arrivals, cursor)
        except _UNSTORABLE:
            log.exception("a mail of %s cannot be stored as it was read", self.route.name)
        moved: list[dict[str, Any]] = []
        for one in arrivals:
            alone = self._alone(one)
            if alone is None:
                return None
            moved += alone
        return None if self._commit((), cursor) is None else moved

    def _alone(self, arrival: Arrival) -> list[dict[str, Any]] | None:
        try:
            return self._commit([arrival], self.cursor)
        except _UNSTORABLE as wrong:
            return self._commit([incoming.unreadable(arrival, type(wrong).__name__)], self.cursor)

    def _commit(
        self, arrivals: Sequence[Arrival], cursor: dict[str, Any]
    ) -> list[dict[str, Any]] | None:
        with self.state.database.write() as connection:
            turn = _move_on(connection, self.route.config_id, self.turn, cursor)
            if turn is None:
                return None
            moved = incoming.file(connection, self.route.config_id, arrivals)
            crash_point("inbox.written")
        self.turn, self.cursor = turn, cursor
        return moved

    def leave(self, pause: float, error: str | None) -> bool:
        """Let it be read again in ``pause`` seconds; return whether it was still ours."""
        given = {"id": self.route.config_id, "turn": self.turn, "pause": pause}
        with self.state.database.write() as connection:
            sql = _leave(dialect_of(connection), error is None)
            return bool(connection.execute(sql, given | {"error": error and clean(error)}).rowcount)


def sync(
    state: State,
    key: str | int | None = None,
    progress: Callable[[int], None] = lambda fetched: None,
) -> SyncResult:
    """Read one mailbox, or all of them, to the end, now and in this process.

    ``asked`` are the mails that were fetched, ``updated`` those that are new here, ``open`` the
    mailboxes that could not be read to the end. With a ``key`` (of an email configuration, or its
    id) that is raised as a :class:`ProviderError`; without one it is logged. Raises
    :class:`ConfigNotFound`, and :class:`InvalidQuery` for a configuration that has no inbox.
    """
    fetched = came = left = 0
    for route in _named(state, key):
        reading = take(state, route)
        assert reading is not None
        try:
            left += reading.run()
        except ProviderError as failure:
            if key is not None:
                raise
            left += 1
            log.warning("cannot read the inbox of %s: %s", route.name, failure.reason)
        fetched, came = fetched + reading.fetched, came + reading.came
        progress(fetched)
    return SyncResult(fetched, came, left)


def _named(state: State, key: str | int | None) -> list[Route]:
    routes = Routes(state)
    with state.database.read() as connection:
        chosen = None if key is None else routing.choose(connection, "email", key)
        ids = connection.scalars(_MAILBOXES).all() if chosen is None else [chosen]
        known = routes.load(connection, ids)
    found = [known[one] for one in ids]
    if chosen is None:
        return [one for one in found if _has_inbox(one)]
    if not _has_inbox(found[0]):
        why = found[0].blocked or "its provider has no inbox"
        raise InvalidQuery({"key": [f"{found[0].name} has no inbox: {why}"]})
    return found


_MAILBOXES = text(
    "SELECT id FROM communication_config WHERE type = 'email' AND deleted_at IS NULL AND enabled "
    "ORDER BY id"
)


def _has_inbox(route: Route) -> bool:
    if route.provider is None or route.blocked is not None:
        return False
    route.learn()
    return route.provider.has_inbox(route.config)


def sync_due(state: State, stop: Callable[[], bool] = lambda: False) -> None:
    """Read the mailboxes whose turn it is.

    What goes wrong is logged, and kept for people to see.
    """
    routes = Routes(state)
    with state.database.read() as connection:
        ids = (
            connection.scalars(_due(dialect_of(connection))).all()
            if state.settings.inbox_every
            else []
        )
        known = routes.load(connection, ids) if ids else {}
    for one in ids:
        if stop():
            return
        _read_due(state, known[one], stop)


def _read_due(state: State, route: Route, stop: Callable[[], bool]) -> None:
    reading = take(state, route, only_if_due=True)
    if reading is None:
        return
    if not _has_inbox(route):
        reading.leave(AFTER_NONE, None)
        return
    try:
        reading.run(stop)
    except ProviderError as failure:
        log.warning(
            "cannot read the inbox of %s: %s; trying again in %.0f s",
            route.name,
            failure.reason,
            AFTER_TROUBLE,
        )


def is_due(state: State) -> bool:
    """Tell whether there is a mailbox to read, or that nobody has looked at yet."""
    if not state.settings.inbox_every:
        return False
    with state.database.read() as connection:
        return connection.execute(_due(dialect_of(connection))).first() is not None


@cache
def _due(dialect: Dialect) -> TextClause:
    return text(
        "SELECT c.id FROM communication_config AS c"
        " LEFT JOIN communication_mailbox AS b ON b.config_id = c.id"
        " WHERE c.type = 'email' AND c.deleted_at IS NULL AND c.enabled"
        f" AND (b.config_id IS NULL OR b.due_at <= {dialect.now}) ORDER BY b.due_at"
    )


def take(state: State, route: Route, *, only_if_due: bool = False) -> Reading | None:
    """Begin to read a mailbox, and end whoever else reads it; None if it must be due and is not."""
    with state.database.write() as connection:
        given = {"id": route.config_id, "lease": LEASE}
        row = connection.execute(_take(dialect_of(connection), only_if_due), given).first()
    if row is None:
        return None
    cursor = json.loads(row.cursor) if isinstance(row.cursor, str) else row.cursor
    return Reading(state, route, cursor, row.due_at)


@cache
def _take(dialect: Dialect, only_if_due: bool) -> TextClause:
    lease = dialect.later(":lease")
    due = f" WHERE b.due_at <= {dialect.now}" if only_if_due else ""
    return text(
        "INSERT INTO communication_mailbox AS b (config_id, cursor, due_at, reading)"
        f" VALUES (:id, '{{}}', {lease}, true)"
        f" ON CONFLICT (config_id) DO UPDATE SET due_at = {lease}, reading = true{due}"
        " RETURNING cursor, due_at"
    )


def _move_on(connection: Connection, config_id: int, turn: Any, cursor: Mapping[str, Any]) -> Any:
    """Write down how far a mailbox has been read.

    Return the next turn, or None if it is another's.
    """
    given = {"id": config_id, "turn": turn, "lease": LEASE, "cursor": json.dumps(cursor)}
    return connection.execute(_move_on_sql(dialect_of(connection)), given).scalar()


@cache
def _move_on_sql(dialect: Dialect) -> TextClause:
    return text(
        f"UPDATE communication_mailbox SET cursor = {dialect.json(':cursor')},"
        f" due_at = {dialect.later(':lease')}"
        " WHERE config_id = :id AND due_at = :turn RETURNING due_at"
    )


@cache
def _leave(dialect: Dialect, is_read: bool) -> TextClause:
    done = f", synced_at = {dialect.now}" if is_read else ""
    return text(
        f"UPDATE communication_mailbox SET due_at = {dialect.later(':pause')}, reading = false,"
        f" error = :error{done} WHERE config_id = :id AND due_at = :turn"
    )
