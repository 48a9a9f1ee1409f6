"""The fixture ``communication_outbox``: the messages that would have left, in their order."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, overload

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, selectinload

from .. import signals
from ..configs.breaker import RecentRequests
from ..configs.routes import Routes, find_config
from ..configs.state import State
from ..delivery import actions, reports
from ..delivery.channel import channel_of, channels_of
from ..delivery.worker.dispatcher import Dispatcher
from ..errors import CommunicationError
from ..providers import standin
from ..providers.base import File
from ..signals import announce
from ..storage.models import Attachment, Config, Mail, Message
from .standin import StandIn


@dataclass(frozen=True)
class SentSMS:
    """One SMS that would have left; ``key`` is its configuration's, ``message`` the whole row."""

    uuid: str
    destination: str
    msg: str
    sender: str | None
    status: str
    key: str | None
    metadata: Mapping[str, Any]
    message: Message = field(repr=False, compare=False)


@dataclass(frozen=True)
class SentEmail:
    """One email that would have left.

    ``sender``, ``to``, ``cc``, ``bcc`` and ``reply_to`` are mailboxes as they were written;
    ``recipients`` are the bare addresses of to, cc and bcc, and ``destination`` the first of them.
    """

    uuid: str
    destination: str
    subject: str
    body: str
    html: str | None
    sender: str | None
    to: Sequence[str]
    cc: Sequence[str]
    bcc: Sequence[str]
    reply_to: Sequence[str]
    recipients: Sequence[str]
    headers: Mapping[str, str]
    files: Sequence[File]
    status: str
    key: str | None
    metadata: Mapping[str, Any]
    message: Message = field(repr=False, compare=False)


Sent = SentSMS | SentEmail


class _Accepted:
    """A message that was accepted, and the transaction that it stands or falls with."""

    def __init__(self, state: State, uuid: str, session: Any) -> None:
        self.state = state
        self.uuid = uuid
        self._session = session.registry() if hasattr(session, "registry") else session
        self._transaction = None if session is None else self._session.get_transaction()
        self._bind = None if session is None else self._session.get_bind()

    @property
    def is_open(self) -> bool:
        """Whether that transaction has not ended; one that was rolled back has left no row."""
        return self._session is not None and self._session.get_transaction() is self._transaction

    @property
    def within(self) -> Connection | None:
        """The connection of a session inside a transaction of its test, whose rows only it sees."""
        lasts = (
            isinstance(self._bind, Connection)
            and not self._bind.closed
            and self._bind.in_transaction()
        )
        return self._bind if lasts else None


class Outbox(Sequence[Sent]):
    """What would have left this process: all of it in order, or by channel.

    Only what is committed is there, and nothing that was cancelled. Every look reads the database.
    """

    def __init__(self) -> None:
        self._accepted: list[_Accepted] = []
        self._lock = threading.Lock()

    @property
    def sms(self) -> list[SentSMS]:
        """The SMS, the first accepted first."""
        return [one for one in self._sent() if isinstance(one, SentSMS)]

    @property
    def email(self) -> list[SentEmail]:
        """The emails, the first accepted first."""
        return [one for one in self._sent() if isinstance(one, SentEmail)]

    def deliver(self) -> None:
        """Let what is due pass, so that statuses move and signals are sent; nobody is reached.

        Everything becomes ``delivered``, except what limits or suppressions stop, what is scheduled
        for later, and what goes to one of the simulator's magic numbers. Raises
        :class:`SessionConflict` where your own transaction is open on SQLite.
        """
        for state in self._states():
            with ThreadPoolExecutor(state.settings.concurrency) as pool:
                Dispatcher(state, Routes(state), RecentRequests(), pool, lambda: False).run()
            for channel in channels_of(state):
                _, moved = reports.sync(state, channel)
                announce(state.app, moved)

    def clear(self) -> None:
        """Forget what came so far."""
        with self._lock:
            self._accepted.clear()

    def before_accept(
        self, connection: Connection, channel: str, keys: Collection[str | int | None]
    ) -> None:
        """Give a channel without a default configuration the simulator, where one is asked for."""
        if None in keys and find_config(connection, channel, None) is None:
            into = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            now = datetime.now(UTC)
            row = {"type": channel, "provider_pkg_name": "simulator", "is_default": True}
            # A thread that sends at the same time may be first.
            new = into(Config).values(created_at=now, updated_at=now, **row)
            connection.execute(new.on_conflict_do_nothing())

    def accepted(self, state: State, uuids: Sequence[str], session: object) -> None:
        """List messages that were accepted; see :class:`.signals.AcceptListener`."""
        with self._lock:
            known = {one.uuid for one in self._accepted}
            self._accepted += [
                _Accepted(state, uuid, session) for uuid in uuids if uuid not in known
            ]

    def end(self) -> None:
        """Cancel what still waits, or a worker would send it when the test is over."""
        # The database may be gone, or the message be on its way: then nobody will send it.
        with suppress(CommunicationError, SQLAlchemyError):
            rows = self._rows()
            for one in self._ended():
                if one.uuid in rows and rows[one.uuid].status in ("queued", "held"):
                    channel = channel_of(one.state, rows[one.uuid].channel)
                    actions.cancel(one.state, channel, one.uuid)

    def _states(self) -> list[State]:
        return list({id(one.state): one.state for one in self._ended()}.values())

    def _ended(self) -> list[_Accepted]:
        with self._lock:
            return [one for one in self._accepted if not one.is_open]

    def _sent(self) -> list[Sent]:
        rows = self._rows()
        return [_shown(rows[one.uuid]) for one in self._ended() if one.uuid in rows]

    def _rows(self) -> dict[str, Message]:
        together: dict[tuple[State, Connection | None], list[str]] = defaultdict(list)
        for one in self._ended():
            together[one.state, one.within].append(one.uuid)
        rows: dict[str, Message] = {}
        for (state, within), uuids in together.items():
            rows |= _read(state, within, uuids)
        return rows

    def __len__(self) -> int:
        return len(self._sent())

    def __iter__(self) -> Iterator[Sent]:
        return iter(self._sent())

    @overload
    def __getitem__(self, place: int) -> Sent: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sent]: ...
    def __getitem__(self, place: int | slice) -> Sent | list[Sent]:
        return self._sent()[place]

    def __repr__(self) -> str:
        return f"<communication_outbox {self._sent()!r}>"


def _read(state: State, within: Connection | None, uuids: Iterable[str]) -> dict[str, Message]:
    mail = selectinload(Message.mail)
    wanted = (
        select(Message)
        .where(Message.uuid.in_(list(uuids)), Message.status != "cancelled")
        .options(
            selectinload(Message.config),
            selectinload(Message.attempts),
            selectinload(Message.events),
            mail.selectinload(Mail.recipients),
            mail.selectinload(Mail.attachments).selectinload(Attachment.file),
        )
    )
    if within is not None:
        with Session(
            within, expire_on_commit=False, join_transaction_mode="rollback_only"
        ) as session:
            return {one.uuid: one for one in session.scalars(wanted)}
    with state.database.session() as session:
        return {one.uuid: one for one in session.scalars(wanted)}


def _file(one: Attachment) -> File:
    return File(one.filename, one.content_type, bytes(one.file.content), one.content_id)


def _shown(message: Message) -> Sent:
    common: dict[str, Any] = {
        "uuid": message.uuid,
        "destination": message.destination,
        "sender": message.sender,
        "status": message.status,
        "key": message.config and message.config.key,
        "metadata": message.meta or {},
        "message": message,
    }
    mail = message.mail
    if mail is None:
        return SentSMS(msg=message.body, **common)
    people = mail.mailboxes
    return SentEmail(
        subject=mail.subject,
        body=message.body,
        html=mail.html,
        recipients=[one.address for one in mail.recipients],
        headers=mail.headers,
        files=[_file(one) for one in mail.attachments],
        to=people.get("to", []),
        cc=people.get("cc", []),
        bcc=people.get("bcc", []),
        reply_to=people.get("reply_to", []),
        **common,
    )


@pytest.fixture
def communication_outbox() -> Iterator[Outbox]:
    """Let nothing leave this process, and give the messages: ``.sms``, ``.email``, or all in order.

    It needs no application, whatever your fixture of one is called and whenever it is made; no
    stored configuration, because a channel without a default one gets the simulator; and starts no
    thread that outlives a call. What still waits when the test ends is cancelled.
    """
    outbox = Outbox()
    with standin.test_mode(StandIn), signals.listening(outbox):
        yield outbox
        outbox.end()
