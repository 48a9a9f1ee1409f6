"""Accept messages: check them, and store them in the caller's transaction or one of our own.

The same idempotency key is stored once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from .. import signals
from ..configs import routes
from ..configs.state import State
from ..errors import IdempotencyConflict, InvalidMessage
from ..formats.text import line, moment
from ..storage.crashpoints import crash_point
from ..storage.database import HostSession
from ..storage.dialect import Dialect
from ..storage.models import PRIORITIES
from . import outbox
from .channel import Channel, Content
from .transitions import NewMessage

# What may be said of any message besides what it says itself.
OPTIONS = ("send_at", "expires_at", "idempotency_key", "priority", "metadata")
MAX_KEY = 255
MAX_METADATA = 10_000
# Where a session remembers whom to wake when it commits.
BELLS = "communication_bells"

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What may be said of any message, checked; moments are aware and in UTC."""

    priority: int
    send_at: datetime | None
    expires_at: datetime | None
    lifetime: float
    idempotency_key: str | None
    meta: dict[str, Any] | None


@dataclass(frozen=True)
class Draft:
    """A message that was checked, before it is stored.

    ``key`` names its configuration. ``content`` is what belongs to it besides its row, and
    ``body_hash`` tells it from others if the row does not.
    """

    destination: str
    body: str
    sender: str | None
    key: str | int | None
    options: Options
    content: object = None
    body_hash: str | None = None


def options(given: Mapping[str, Any], lifetime: float) -> Options:
    """Check what may be said of any message; raise :class:`InvalidMessage`."""
    send_at = moment("send_at", given.get("send_at"))
    return Options(
        _priority(given.get("priority") or "normal"),
        send_at,
        _expiry(send_at, moment("expires_at", given.get("expires_at")), lifetime),
        lifetime,
        line("idempotency_key", given.get("idempotency_key"), MAX_KEY),
        _metadata(given.get("metadata")),
    )


def _priority(raw: object) -> int:
    if raw not in PRIORITIES:
        raise InvalidMessage({"priority": [f"must be one of {', '.join(PRIORITIES)}"]})
    return PRIORITIES[raw]


def _expiry(
    send_at: datetime | None, expires_at: datetime | None, lifetime: float
) -> datetime | None:
    if expires_at is None:
        return send_at and send_at + timedelta(seconds=lifetime)
    if expires_at <= (send_at or datetime.now(UTC)):
        raise InvalidMessage({"expires_at": ["must be later than send_at, and not in the past"]})
    return expires_at


def _metadata(raw: object) -> dict[str, Any] | None:
    if raw is None:
        return None
    try:
        text = json.dumps(raw, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidMessage({"metadata": ["must be a dictionary that JSON can carry"]}) from None
    is_storable = "\\u0000" not in text and "\\ud" not in text
    if not isinstance(raw, Mapping) or len(text) > MAX_METADATA or not is_storable:
        most = f"must be a dictionary of at most {MAX_METADATA} characters of valid JSON"
        raise InvalidMessage({"metadata": [most]})
    return dict(raw)


def check_all(items: Sequence[T], check: Callable[[T], Draft]) -> list[Draft]:
    """Check many messages; raise one :class:`InvalidMessage` that names each wrong item."""
    drafts: list[Draft] = []
    wrong: dict[str, Sequence[str]] = {}
    for place, item in enumerate(items):
        try:
            drafts.append(check(item))
        except InvalidMessage as invalid:
            prefix = f"[{place}]." if len(items) > 1 else ""
            wrong |= {prefix + name: reasons for name, reasons in invalid.errors.items()}
    if wrong:
        raise InvalidMessage(wrong)
    return drafts


def key(raw: object) -> str | int | None:
    """Return what names a configuration, or None; raise :class:`InvalidMessage`."""
    if raw is None or (isinstance(raw, str | int) and not isinstance(raw, bool)):
        return raw
    raise InvalidMessage({"key": ["must be the key or the id of a configuration"]})


def accept(
    state: State,
    channel: Channel,
    drafts: Sequence[Draft],
    key: str | int | None,
    session: HostSession | None = None,
) -> list[str]:
    """Store messages as ``queued`` and return their uuids, in order.

    ``key`` names the configuration of the drafts without their own. With ``session`` they stand or
    fall with that session's transaction; without it they are committed when this returns. Raises
    :class:`ConfigNotFound`, :class:`IdempotencyConflict`, :class:`SessionConflict`.
    """
    if not drafts:
        return []
    with _transaction(state, session) as connection:
        keys = [key if one.key is None else one.key for one in drafts]
        signals.before_accept(connection, channel.name, keys)
        chosen = {one: routes.choose(connection, channel.name, one) for one in dict.fromkeys(keys)}
        dialect = state.database.dialect
        rows = [
            _row(channel.name, chosen[one], draft, dialect)
            for one, draft in zip(keys, drafts, strict=True)
        ]
        uuids, new = _insert(connection, channel.name, rows)
        channel.store(
            connection,
            [
                Content(row.uuid, row.sender, draft.content)
                for row, draft in zip(rows, drafts, strict=True)
                if draft.content is not None and row.uuid in new
            ],
        )
        crash_point("accept.written")
    signals.accepted(state, [uuid for uuid in uuids if uuid in new], session)
    if session is None:
        crash_point("accept.committed")
        state.ring()
        crash_point("accept.rung")
    else:
        _ring_after_commit(session, state)
    return uuids


def _transaction(state: State, session: HostSession | None) -> AbstractContextManager[Connection]:
    if session is None:
        return state.database.write()
    return state.database.joined(session)


def _row(channel: str, config_id: int, draft: Draft, dialect: Dialect) -> NewMessage:
    said = draft.options
    is_keyed = said.idempotency_key is not None
    return NewMessage(
        str(uuid4()),
        channel,
        draft.destination,
        draft.sender,
        draft.body,
        config_id,
        said.priority,
        dialect.time(said.send_at) if said.send_at else None,
        dialect.time(said.expires_at) if said.expires_at else None,
        said.lifetime,
        said.idempotency_key,
        (draft.body_hash or _hash(draft)) if is_keyed else None,
        said.meta,
    )


def _hash(draft: Draft) -> str:
    said = [draft.destination, draft.body, draft.sender, draft.options.meta]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _insert(
    connection: Connection, channel: str, rows: Sequence[NewMessage]
) -> tuple[list[str], set[str]]:
    # Looked up before anything is written, so that a conflict leaves the caller's transaction
    # clean.
    before = _before(connection, channel, rows)
    fresh = [row for row in rows if row.idempotency_key not in before]
    new = outbox.accept(connection, fresh) if fresh else set()
    if len(new) < len(fresh):
        before = _before(connection, channel, rows)
    uuids = [row.uuid if row.uuid in new else before[row.idempotency_key] for row in rows]
    return uuids, new


def _before(
    connection: Connection, channel: str, rows: Sequence[NewMessage]
) -> dict[str | None, str]:
    keys = [row.idempotency_key for row in rows if row.idempotency_key is not None]
    if not keys:
        return {}
    found = outbox.accepted_before(connection, channel, dict.fromkeys(keys))
    for row in rows:
        earlier = found.get(row.idempotency_key or "")
        if earlier is not None and earlier.body_hash != row.body_hash:
            raise IdempotencyConflict(
                f"the idempotency key {row.idempotency_key!r} was used for another message, "
                f"{earlier.uuid}; use a new key for a new message"
            )
    return {key: earlier.uuid for key, earlier in found.items()}


def _ring_after_commit(session: HostSession, state: State) -> None:
    real: Session = session.registry() if isinstance(session, scoped_session) else session
    if BELLS not in real.info:
        real.info[BELLS] = []
        event.listen(real, "after_commit", _committed)
        event.listen(real, "after_soft_rollback", _rolled_back)
    if state not in real.info[BELLS]:
        real.info[BELLS].append(state)


def _committed(session: Session) -> None:
    # The end of a savepoint is no commit: the workers would be woken for rows that they cannot see
    # yet.
    if session.in_nested_transaction():
        return
    states, session.info[BELLS] = session.info[BELLS], []
    for state in states:
        state.ring()


def _rolled_back(session: Session, previous: SessionTransaction) -> None:
    if not previous.nested:
        session.info[BELLS] = []
