"""Messages that come in: kept once, obeyed if they say STOP or START, and announced."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import TextClause, select, text
from sqlalchemy.engine import Connection

from ..configs.routes import find_config
from ..configs.state import State
from ..delivery.policy import suppression
from ..delivery.policy.suppression import NewSuppression
from ..errors import ConfigNotFound
from ..formats.text import clean
from ..signals import announce
from ..storage import events
from ..storage.dialect import Dialect, dialect_of
from ..storage.models import Message
from ..storage.models.status import RECEIVED

# The words that American carriers and the CTIA's Messaging Principles and Best Practices name.
STOP = frozenset({"stop", "stopall", "unsubscribe", "cancel", "end", "quit"})
START = frozenset({"start", "yes", "unstop"})
# No key that a caller may choose has this character, so theirs and ours cannot meet.
_APART = "\x1f"


class Incoming(NamedTuple):
    """A message that came in; ``source`` wrote it to ``destination``, which is ours."""

    source: str
    destination: str
    body: str


def receive(
    state: State, channel: str, mail: Incoming, key: str | int | None, provider_ref: str | None
) -> str:
    """Store an incoming message and return its uuid, once for each ``provider_ref``.

    ``key`` names the configuration it came by (None: the default one, if there is one). Raises
    :class:`ConfigNotFound`.
    """
    with state.database.write() as connection:
        config = find_config(connection, channel, key)
        if config is None and key is not None:
            raise ConfigNotFound(f"no {channel} configuration has the key or id {str(key)!r}")
        config_id = None if config is None else config.id
        once = _key(config_id, provider_ref)
        uuid = str(uuid4())
        stored = _store(connection, channel, mail, uuid, config_id, provider_ref, once)
        if stored is None:
            return _known(connection, channel, once)
        _obey(connection, channel, mail, config_id, stored)
    announce(state.app, [{"uuid": uuid, "channel": channel, "status": RECEIVED}])
    return uuid


def _key(config_id: int | None, provider_ref: str | None) -> str | None:
    if provider_ref is None:
        return None
    return f"in{_APART}{events.fingerprint('received', config_id, provider_ref)}"


def _store(
    connection: Connection,
    channel: str,
    mail: Incoming,
    uuid: str,
    config_id: int | None,
    provider_ref: str | None,
    once: str | None,
) -> int | None:
    given: dict[str, Any] = {**mail._asdict(), "uuid": uuid, "channel": channel, "status": RECEIVED}
    given |= {"config_id": config_id, "ref": provider_ref, "once": once}
    stored: int | None = connection.execute(_insert(dialect_of(connection)), given).scalar()
    return stored


@cache
def _insert(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_message (uuid, channel, direction, status, destination, "
        "sender, body, config_id, route_id, priority, expires_at, idempotency_key, provider_ref, "
        "fence, tries, crashes, resends, created_at, updated_at) VALUES (:uuid, :channel, 'in', "
        f":status, :destination, :source, :body, :config_id, :config_id, 5, {dialect.now}, :once, "
        f":ref, 0, 0, 0, 0, {dialect.now}, {dialect.now}) ON CONFLICT (channel, idempotency_key) "
        "WHERE idempotency_key IS NOT NULL DO NOTHING RETURNING id"
    )


def _known(connection: Connection, channel: str, once: str | None) -> str:
    found: str = connection.execute(
        select(Message.uuid).where(Message.channel == channel, Message.idempotency_key == once)
    ).scalar_one()
    return found


def word(body: str) -> str | None:
    """Return "stop" or "start" for a message that is nothing but such a word, else None."""
    said = re.sub(r"[\W_]+", "", body).lower()
    return "stop" if said in STOP else "start" if said in START else None


def _obey(
    connection: Connection, channel: str, mail: Incoming, config_id: int | None, message_id: int
) -> None:
    said = word(mail.body)
    if said is None:
        return
    scopes = [suppression.sender_scope(mail.destination)]
    if config_id is not None:
        # A message that named no sender came from the configuration's own number, which may be this
        # one.
        meant = {config_id, _stood_in_for(connection, channel, mail.source, config_id)}
        scopes += [suppression.config_scope(one) for one in sorted(meant)]
    if said == "start":
        suppression.lift(connection, channel, mail.source, scopes)
    else:
        why = clean(mail.body, 100)
        suppression.store(
            connection,
            [NewSuppression(channel, mail.source, scope, "stop", why) for scope in scopes],
        )
    done = "suppressed" if said == "stop" else "no longer suppressed"
    events.note(connection, message_id, said, f"{mail.source} is {done} for {' and '.join(scopes)}")


def _stood_in_for(connection: Connection, channel: str, recipient: str, config_id: int) -> int:
    """Return the configuration for which this one, as a fallback, last wrote to a recipient."""
    found = connection.scalar(
        select(Message.route_id)
        .where(
            Message.channel == channel, Message.destination == recipient, Message.direction == "out"
        )
        .where(Message.config_id == config_id, Message.sender.is_(None))
        .order_by(Message.id.desc())
        .limit(1)
    )
    return config_id if found is None else found
