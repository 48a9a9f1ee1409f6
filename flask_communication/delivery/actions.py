"""The actions of a person on a message: retry, cancel, resolve, release."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from sqlalchemy import TextClause, bindparam, select, text
from sqlalchemy.engine import Connection

from .. import signals
from ..configs import routes
from ..configs.state import State
from ..errors import (
    CommunicationError,
    Conflict,
    InvalidQuery,
    MessageNotFound,
    NotCancellable,
    NotReleasable,
    NotResolvable,
    NotRetryable,
)
from ..formats import numbers
from ..formats.text import line, multiline
from ..signals import announce
from ..storage import events
from ..storage.crashpoints import crash_point
from ..storage.dialect import Dialect, dialect_of
from ..storage.models import Config, Message
from ..storage.models.status import MOVES, QUEUED, UNKNOWN, UNREACHED
from ..storage.retention import REMOVED
from .channel import Channel, channel_of_recipient
from .outbox import among, listed
from .policy import suppression

LONGEST_SENDER = 320
LONGEST_DETAIL = 500
RESOLUTIONS = {"sent": "resolve_sent", "resend": "resolve_resend", "drop": "resolve_drop"}

_TWICE = "the recipient would get it twice. force=True sends it again all the same"
_WHY_NOT_RETRY = {
    "held": "it is held back; release it instead",
    "sending": "it is being sent at this moment",
    "sent": f"the provider has it; {_TWICE}",
    "delivered": f"it was delivered; {_TWICE}",
    "read": f"it was read; {_TWICE}",
    "unknown": 'it may have arrived; look, then resolve(msg_uuid, "sent" | "resend" | "drop")',
    "received": "it came in",
}


def retry(state: State, channel: Channel, uuid: str, *, force: bool = False) -> str:
    """Send a message again and return its uuid; one that waits for its turn is sent at once.

    Raises :class:`MessageNotFound`, or :class:`NotRetryable` where the recipient could get it
    twice, unless ``force``.
    """
    with state.database.write() as connection:
        waiting = _hurry(connection, uuid, channel.name)
        if waiting is not None:
            _reroute(connection, channel.name, waiting)
        else:
            _refuse_without_text(connection, uuid)
            moved = _retry(connection, channel, uuid, force)
            _reroute(connection, channel.name, moved)
            by = "sent again by a person" + " by force" * force
            events.note(connection, moved, "retried", by)
    crash_point("decide.committed")
    _queued(state, [uuid])
    return uuid


def _retry(connection: Connection, channel: Channel, uuid: str, force: bool) -> int:
    """Move a message back to the queue, for those it has not reached; return its id."""
    move = "force_retry" if force else "retry"
    moved = _move(connection, move, uuid, channel)
    if moved is not None:
        channel.reopen(connection, moved, everybody=force)
        return moved
    moved = _retry_refused(connection, channel, uuid)
    if moved is None:
        raise _refusal(connection, channel.name, uuid, NotRetryable, "retried", _WHY_NOT_RETRY)
    return moved


def _retry_refused(connection: Connection, channel: Channel, uuid: str) -> int | None:
    """Send a message that reached some to those that were refused; return its id, or None."""
    if not channel.part_recipients(connection, uuid):
        return None
    moved = _move(connection, "force_retry", uuid, channel, besides="retry_refused")
    if moved is not None:
        channel.reopen_refused(connection, moved)
    return moved


def _queued(state: State, uuids: Sequence[str]) -> None:
    """Wake a worker for messages that a person has put back into the queue."""
    signals.accepted(state, uuids, None)
    state.ring()


def cancel(state: State, channel: Channel, uuid: str) -> str:
    """Stop a message that has not left, and return its uuid.

    Raises :class:`MessageNotFound`, or :class:`NotCancellable` if it has left or may have.
    """
    with state.database.write() as connection:
        moved = _move(connection, "cancel", uuid, channel)
        if moved is None:
            doubt = "an earlier try may have arrived, and it will be repeated until it is known"
            why = {"queued": doubt}
            raise _refusal(connection, channel.name, uuid, NotCancellable, "cancelled", why)
        events.note(connection, moved, "cancelled", "cancelled by a person")
    return uuid


def resolve(state: State, channel: Channel, uuid: str, decision: str) -> str:
    """Store what became of an ``unknown`` message, as a person says, and return its uuid.

    ``sent``: it went. ``resend``: send it again, under a new key. ``drop``: let it be. Raises
    :class:`InvalidQuery`, :class:`MessageNotFound`, or :class:`NotResolvable` if it is not
    ``unknown``.
    """
    move = RESOLUTIONS.get(decision)
    if move is None:
        raise InvalidQuery({"decision": [f"must be one of {', '.join(RESOLUTIONS)}"]})
    with state.database.write() as connection:
        moved = _move(connection, move, uuid, channel)
        if moved is None:
            raise _refusal(connection, channel.name, uuid, NotResolvable, "resolved", {})
        if MOVES[move].target == QUEUED:
            channel.reopen(connection, moved, everybody=False)
        events.note(connection, moved, "resolved", f"a person decided: {decision}")
    crash_point("decide.committed")
    target = MOVES[move].target
    announce(state.app, [{"uuid": uuid, "channel": channel.name, "status": target}])
    if target == QUEUED:
        _queued(state, [uuid])
    else:
        state.ring()
    return uuid


def release(state: State, channel: Channel, uuid: str) -> str:
    """Let a ``held`` message pass and return its uuid; no limit stops it any more.

    Raises :class:`MessageNotFound`, or :class:`NotReleasable` if it is not held.
    """
    with state.database.write() as connection:
        moved = _move(connection, "release", uuid, channel)
        if moved is None:
            raise _refusal(connection, channel.name, uuid, NotReleasable, "released", {})
        events.note(connection, moved, "released", _RELEASED)
    _queued(state, [uuid])
    return uuid


def release_all(state: State, channel: Channel, destination: str | None = None) -> int:
    """Let every ``held`` message of a channel, or to one recipient, pass; return how many."""
    given: dict[str, object] = {"channel": channel.name, "lifetime": channel.lifetime}
    if destination is not None:
        forms = numbers.candidates(destination, state.settings.default_region)
        given["forms"] = [one.lower() for one in forms]
    released = 0
    while True:
        with state.database.write() as connection:
            sql = _release_sql(dialect_of(connection), destination is not None)
            moved = connection.execute(sql, given).all()
            events.note_all(connection, [row.id for row in moved], "released", _RELEASED)
        if not moved:
            return released
        released += len(moved)
        _queued(state, [row.uuid for row in moved])


def suppress(
    state: State,
    destination: str,
    sender: str | None = None,
    reason: str = "manual",
    *,
    key: str | int | None = None,
    detail: str | None = None,
    channel: Channel | None = None,
) -> None:
    """Send nothing more to a recipient: from nobody, one ``sender``, or one configuration.

    ``channel`` None: the one that the recipient looks like. Raises :class:`InvalidMessage`,
    :class:`InvalidQuery` and :class:`ConfigNotFound`.
    """
    channel = channel or channel_of_recipient(state, destination)
    to = channel.suppression_key(destination, state.settings)
    about = None if detail is None else multiline("detail", detail, LONGEST_DETAIL)
    by = _scope(channel, sender)
    suppression.suppress(state, channel.name, to, key, by, reason, about)


def unsuppress(
    state: State,
    destination: str,
    sender: str | None = None,
    *,
    key: str | int | None = None,
    channel: Channel | None = None,
) -> None:
    """Take back a :func:`suppress` of the same recipient with the same ``sender`` or ``key``.

    Raises :class:`SuppressionNotFound`, and what :func:`suppress` raises.
    """
    channel = channel or channel_of_recipient(state, destination)
    to = channel.suppression_key(destination, state.settings)
    suppression.unsuppress(state, channel.name, to, key, _scope(channel, sender))


def _scope(channel: Channel, sender: str | None) -> str | None:
    by = line("sender", sender, LONGEST_SENDER)
    return None if by is None else channel.scope(channel.parse_sender(by), None)


_RELEASED = "released by a person"


@cache
def _release_sql(dialect: Dialect, to_one: bool) -> TextClause:
    held = f"status IN ({among('release')})"
    only = " AND lower(destination) IN :forms" if to_one else ""
    return text(
        f"UPDATE communication_message SET status = '{MOVES['release'].target}', fence = fence + 1,"
        f" updated_at = {dialect.now}{_admitted(dialect)} WHERE {held} AND id IN"
        f" (SELECT id FROM communication_message WHERE channel = :channel AND {held}{only}"
        " ORDER BY id LIMIT 1000) RETURNING id, uuid"
    ).bindparams(*([bindparam("forms", expanding=True)] if to_one else []))


def _admitted(dialect: Dialect) -> str:
    return (
        f", due_at = {dialect.now}, expires_at = {dialect.later(':lifetime')}, admitted_at = "
        f"{dialect.now}, error = NULL"
    )


def _refusal(
    connection: Connection,
    channel: str,
    uuid: str,
    kind: type[Conflict],
    done: str,
    why: dict[str, str],
) -> CommunicationError:
    found = connection.scalar(
        select(Message.status).where(Message.uuid == uuid, Message.channel == channel)
    )
    if found is None:
        return MessageNotFound(f"there is no {channel} message {uuid}")
    reason = why.get(found, "an earlier try may have arrived" if kind is NotRetryable else "")
    return kind(
        f"message {uuid} is {found} and cannot be {done}" + (f": {reason}" if reason else "")
    )


def _refuse_without_text(connection: Connection, uuid: str) -> None:
    extra = connection.scalar(select(Message.extra).where(Message.uuid == uuid))
    if extra == json.loads(REMOVED):
        raise NotRetryable(
            f"the text of message {uuid} was removed by the retention policy; send a new one"
        )


def _reroute(connection: Connection, channel: str, message_id: int) -> None:
    gone = connection.scalar(
        select(Config.id)
        .join(Message, Message.config_id == Config.id)
        .where(
            Message.id == message_id, Config.deleted_at.is_not(None), Message.repeat_until.is_(None)
        )
    )
    if gone is not None:
        signals.before_accept(connection, channel, [None])
        _send_by(connection, message_id, routes.choose(connection, channel, None))


def _send_by(connection: Connection, message_id: int, config_id: int) -> None:
    """Send a message by another configuration, whose provider has not seen it yet."""
    connection.execute(
        text(
            "UPDATE communication_message"
            " SET config_id = :config_id, route_id = :config_id, provider_ref = NULL"
            " WHERE id = :id AND status = 'queued'"
        ),
        {"id": message_id, "config_id": config_id},
    )


def _move(
    connection: Connection, move: str, uuid: str, channel: Channel, besides: str | None = None
) -> int | None:
    """Make a person's move on one message; return its id, or None if its status does not allow it.

    ``besides`` names what it demands besides the status, if not what the move always does. A move
    back to ``queued`` makes it due now, for the channel's lifetime, under a new idempotency key.
    """
    found = connection.execute(
        _move_sql(dialect_of(connection), move, besides or move),
        {"uuid": uuid, "channel": channel.name, "lifetime": channel.lifetime},
    )
    moved: int | None = found.scalar()
    crash_point("decide.written", moved)
    return moved


# What a move demands besides the status, so that nothing is sent twice unless a person forces it.
_NO_DOUBT = (
    " AND NOT EXISTS (SELECT 1 FROM communication_attempt AS a WHERE a.message_id = m.id"
    " AND a.state IN ('open', 'unknown') AND NOT EXISTS (SELECT 1 FROM communication_attempt AS b"
    " WHERE b.message_id = a.message_id AND b.key = a.key"
    " AND (b.state = 'accepted' OR (b.state = 'rejected' AND b.fence > a.fence))))"
)
_BESIDES = {
    "cancel": " AND m.repeat_until IS NULL",
    "retry": _NO_DOUBT,
    # Only the recipients that certainly have not got it are tried again.
    "retry_refused": f" AND m.status <> '{UNKNOWN}' AND EXISTS (SELECT 1 FROM"
    " communication_recipient AS p"
    f" WHERE p.message_id = m.id AND p.status IN ({listed(UNREACHED)})){_NO_DOUBT}",
}


@cache
def _move_sql(dialect: Dialect, move: str, besides: str) -> TextClause:
    target = MOVES[move].target
    change = {
        "queued": f", due_at = {dialect.now}, expires_at = {dialect.later(':lifetime')}, tries = 0,"
        " crashes = 0, resends = m.resends + 1, first_tried_at = NULL, error = NULL, error_code ="
        " NULL",
        "sent": f", due_at = NULL, sent_at = {dialect.now}",
    }.get(target, ", due_at = NULL")
    if move == "release":
        change = _admitted(dialect)
    return text(
        f"UPDATE communication_message AS m SET status = '{target}', fence = m.fence + 1,"
        f" repeat_until = NULL, updated_at = {dialect.now}{change}"
        " WHERE m.uuid = :uuid AND m.channel = :channel AND CAST(:lifetime AS double precision) > 0"
        f" AND m.status IN ({among(move)}){_BESIDES.get(besides, '')}{dialect.returning('id')}"
    )


def _hurry(connection: Connection, uuid: str, channel: str) -> int | None:
    """Make a message that waits in ``queued`` due now; return its id, or None."""
    dialect = dialect_of(connection)
    found = connection.execute(
        text(
            f"UPDATE communication_message SET due_at = {dialect.now}, updated_at = {dialect.now}"
            " WHERE uuid = :uuid AND channel = :channel AND status = 'queued' RETURNING id"
        ),
        {"uuid": uuid, "channel": channel},
    )
    moved: int | None = found.scalar()
    return moved
