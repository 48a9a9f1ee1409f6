"""Read mailboxes: when each is due, how far it was read, and why reading it failed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from ..configs import routes as routing
from ..configs.routes import Route, Routes
from ..configs.state import State
from ..delivery.channel import channel_of
from ..errors import InvalidQuery, NotSent, ProviderError
from ..formats.text import clean
from ..providers.base import Inbox
from ..signals import announce
from ..storage.crashpoints import crash_point
from ..storage.dialect import Dialect, dialect_of
from . import incoming
from .incoming import IncomingMail

log = logging.getLogger(__name__)

CHANNEL = "email"

# Mails that are fetched, and stored, together.
BATCH = 100
# Seconds for which a reader has a mailbox for itself, counted anew from each batch.
LEASE = 120.0
AFTER_FAILURE = 300.0
# A provider without an inbox is asked again after so long whether it has one by then.
AFTER_NO_INBOX = 3600.0
# Exceptions about values that a database does not take, not about a database that is away.
_UNSTORABLE = (DataError, IntegrityError, ProgrammingError, TypeError, ValueError)


class InboxResult(NamedTuple):
    """The result of reading mailboxes: mails fetched and new, and mailboxes not read to the end."""

    fetched: int
    new: int
    failed: int

    @property
    def asked(self) -> int:
        """The same as ``fetched``, by the name that ``SyncResult`` has for it."""
        return self.fetched

    @property
    def updated(self) -> int:
        """The same as ``new``, by the name that ``SyncResult`` has for it."""
        return self.new

    @property
    def open(self) -> int:
        """The same as ``failed``, by the name that ``SyncResult`` has for it."""
        return self.failed


@dataclass
class MailboxReader:
    """Reads one mailbox; ``lease`` proves that no other process has begun to read it since."""

    state: State
    route: Route
    cursor: dict[str, Any]
    lease: object
    fetched: int = 0
    new: int = 0

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Read all new mails; return whether some are left, for ``stop`` or for another reader.

        Raises :class:`ProviderError` when the mailbox could not be read to its end.
        """
        try:
            while self._read_batch():
                if stop():
                    self.release(0.0, None)
                    return True
        except ProviderError as failure:
            self.release(AFTER_FAILURE, failure.reason)
            raise
        return not self.release(self.state.settings.inbox_every or AFTER_NO_INBOX, None)

    def _read_batch(self) -> bool:
        found = self._fetch()
        crash_point("inbox.fetched")
        before = self.cursor
        mails = [incoming.parse(self.route.config_id, one) for one in found.mails]
        changed = self._store(mails, dict(found.cursor))
        if changed is None:
            log.info("another process reads the mailbox of %s", self.route.name)
            return False
        crash_point("inbox.filed")
        self.fetched += len(mails)
        self.new += sum(1 for one in changed if one["status"] == "received")
        announce(self.state.app, changed)
        # A provider that says "more" and brings nothing is not asked again and again.
        return found.more and (bool(mails) or dict(found.cursor) != before)

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

    def _store(
        self, mails: Sequence[IncomingMail], cursor: dict[str, Any]
    ) -> list[dict[str, Any]] | None:
        """Store mails together with the cursor; None if another process has the mailbox by now.

        Where the database refuses a batch, each mail is stored by itself.
        """
        try:
            return self._commit(mails, cursor)
        except _UNSTORABLE:
            log.exception("a mail of %s cannot be stored as it was read", self.route.name)
        changed: list[dict[str, Any]] = []
        for one in mails:
            stored = self._store_one(one)
            if stored is None:
                return None
            changed += stored
        return None if self._commit((), cursor) is None else changed

    def _store_one(self, mail: IncomingMail) -> list[dict[str, Any]] | None:
        try:
            return self._commit([mail], self.cursor)
        except _UNSTORABLE as wrong:
            return self._commit([incoming.without_content(mail, type(wrong).__name__)], self.cursor)

    def _commit(
        self, mails: Sequence[IncomingMail], cursor: dict[str, Any]
    ) -> list[dict[str, Any]] | None:
        channel = channel_of(self.state, CHANNEL)
        with self.state.database.write() as connection:
            lease = _renew(connection, self.route.config_id, self.lease, cursor)
            if lease is None:
                return None
            changed = incoming.store(connection, channel, self.route.config_id, mails)
            crash_point("inbox.written")
        self.lease, self.cursor = lease, cursor
        return changed

    def release(self, pause: float, error: str | None) -> bool:
        """Make the mailbox due in ``pause`` seconds; return whether it was still ours."""
        given = {"id": self.route.config_id, "lease": self.lease, "pause": pause}
        with self.state.database.write() as connection:
            sql = _release(dialect_of(connection), error is None)
            return bool(connection.execute(sql, given | {"error": error and clean(error)}).rowcount)


def sync(
    state: State,
    key: str | int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> InboxResult:
    """Read one mailbox, or all of them, to the end, now and in this process.

    ``key`` is that of an email configuration, or its id: then a mailbox that cannot be read raises
    a :class:`ProviderError`; without a key it is logged. Raises :class:`ConfigNotFound`, and
    :class:`InvalidQuery` for a configuration that has no inbox.
    """
    fetched = new = failed = 0
    for route in _routes(state, key):
        reader = claim(state, route)
        assert reader is not None
        try:
            failed += reader.run()
        except ProviderError as failure:
            if key is not None:
                raise
            failed += 1
            log.warning("cannot read the inbox of %s: %s", route.name, failure.reason)
        fetched, new = fetched + reader.fetched, new + reader.new
        progress(fetched)
    return InboxResult(fetched, new, failed)


def _routes(state: State, key: str | int | None) -> list[Route]:
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
    """Read the mailboxes that are due.

    A failure is logged, and stored with its mailbox.
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
    reader = claim(state, route, only_if_due=True)
    if reader is None:
        return
    if not _has_inbox(route):
        reader.release(AFTER_NO_INBOX, None)
        return
    try:
        reader.run(stop)
    except ProviderError as failure:
        log.warning(
            "cannot read the inbox of %s: %s; trying again in %.0f s",
            route.name,
            failure.reason,
            AFTER_FAILURE,
        )


def is_due(state: State) -> bool:
    """Tell whether a mailbox is due; one that was never read is."""
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


def claim(state: State, route: Route, *, only_if_due: bool = False) -> MailboxReader | None:
    """Claim a mailbox, also from another reader; None if it must be due and is not."""
    with state.database.write() as connection:
        given = {"id": route.config_id, "lease": LEASE}
        row = connection.execute(_claim(dialect_of(connection), only_if_due), given).first()
    if row is None:
        return None
    cursor = json.loads(row.cursor) if isinstance(row.cursor, str) else row.cursor
    return MailboxReader(state, route, cursor, row.due_at)


@cache
def _claim(dialect: Dialect, only_if_due: bool) -> TextClause:
    lease = dialect.later(":lease")
    due = f" WHERE b.due_at <= {dialect.now}" if only_if_due else ""
    return text(
        "INSERT INTO communication_mailbox AS b (config_id, cursor, due_at, reading)"
        f" VALUES (:id, '{{}}', {lease}, true)"
        f" ON CONFLICT (config_id) DO UPDATE SET due_at = {lease}, reading = true{due}"
        " RETURNING cursor, due_at"
    )


def _renew(
    connection: Connection, config_id: int, lease: object, cursor: Mapping[str, Any]
) -> object:
    """Store the cursor of a mailbox and return its next lease; None if the lease is another's."""
    given = {"id": config_id, "lease": lease, "seconds": LEASE, "cursor": json.dumps(cursor)}
    return connection.execute(_renewal(dialect_of(connection)), given).scalar()


@cache
def _renewal(dialect: Dialect) -> TextClause:
    return text(
        f"UPDATE communication_mailbox SET cursor = {dialect.json(':cursor')},"
        f" due_at = {dialect.later(':seconds')}"
        " WHERE config_id = :id AND due_at = :lease RETURNING due_at"
    )


@cache
def _release(dialect: Dialect, is_read: bool) -> TextClause:
    done = f", synced_at = {dialect.now}" if is_read else ""
    return text(
        f"UPDATE communication_mailbox SET due_at = {dialect.later(':pause')}, reading = false,"
        f" error = :error{done} WHERE config_id = :id AND due_at = :lease"
    )
