"""The signals that a host may connect to, and how they are sent.

A signal is sent after the change is committed, in the process that made it (mostly a worker), with
the application as sender. Receivers of a message's signal get the keywords ``message_uuid``,
``channel`` and ``status``. Receivers of a configuration's signal get ``config_id``, ``state``,
``seconds`` (None: until the configuration is changed) and ``reason``. A receiver that raises is
logged, and the others are called all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from blinker import NamedSignal, Namespace

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

_signals = Namespace()

message_sent = _signals.signal("communication.message-sent", "The provider accepted a message.")
message_delivered = _signals.signal(
    "communication.message-delivered", "A report says the message was delivered, or read."
)
message_undelivered = _signals.signal(
    "communication.message-undelivered", "A report says the message will not be delivered."
)
message_failed = _signals.signal(
    "communication.message-failed", "A message ended as failed, rejected or expired."
)
message_unknown = _signals.signal(
    "communication.message-unknown", "A message may or may not have left: a person may decide."
)
message_received = _signals.signal("communication.message-received", "A message came in.")
limit_reached = _signals.signal(
    "communication.limit-reached",
    "A limit holds messages back; sent once for each limit, channel and period of the limit.",
)

config_paused = _signals.signal(
    "communication.config-paused",
    "A configuration failed too often, or its provider refuses us: nothing is sent by it.",
)
config_resumed = _signals.signal(
    "communication.config-resumed", "A paused configuration works again."
)

BY_STATUS = {
    "sent": message_sent,
    "delivered": message_delivered,
    "read": message_delivered,
    "undelivered": message_undelivered,
    "failed": message_failed,
    "rejected": message_failed,
    "expired": message_failed,
    "unknown": message_unknown,
    "received": message_received,
}


class Moved(Protocol):
    """A message whose status has changed: a row, or a dataclass."""

    @property
    def uuid(self) -> str:
        """The message's public id."""

    @property
    def channel(self) -> str:
        """Its channel."""

    @property
    def status(self) -> str:
        """Its new status."""


def send(app: Flask, signal: NamedSignal, **fields: object) -> None:
    """Send a signal inside an application context, to each receiver by itself.

    A receiver that raises is logged, and the others are still called: what is committed cannot be
    undone by a failing receiver.
    """
    if not signal.receivers:
        return
    with app.app_context():
        for receiver in signal.receivers_for(app):
            try:
                receiver(app, **fields)
            except Exception:
                about = fields.get("message_uuid", fields.get("config_id"))
                log.exception("a receiver of the signal %s failed for %s", signal.name, about)


def announce(app: Flask, moved: Iterable[Mapping[str, Any] | Moved]) -> None:
    """Send the signal of each message's new status, if that status has one.

    ``moved`` are mappings, rows or dataclasses with ``uuid``, ``channel`` and ``status``.
    """
    for message in moved:
        uuid, channel, status = _identity(message)
        signal = BY_STATUS.get(status)
        if signal is not None:
            send(app, signal, message_uuid=uuid, channel=channel, status=status)


def _identity(message: Mapping[str, Any] | Moved) -> tuple[str, str, str]:
    if isinstance(message, Mapping):
        return message["uuid"], message["channel"], message["status"]
    return message.uuid, message.channel, message.status


class AcceptListener(Protocol):
    """Listens to the acceptance of messages, inside and after its transaction: for tests of hosts.

    Several may listen; the one that began last is called.
    """

    def before_accept(
        self, connection: Any, channel: str, keys: Collection[str | int | None]
    ) -> None:
        """Prepare for messages that are about to be accepted on this connection.

        ``keys`` name their configurations; None is the default one.
        """

    def accepted(self, state: Any, uuids: Sequence[str], session: Any) -> None:
        """Learn of messages that are new, or sent again by a person.

        With ``session`` they stand or fall with that session's transaction.
        """


_listeners: list[AcceptListener] = []


@contextmanager
def listening(listener: AcceptListener) -> Iterator[None]:
    """Call a listener at each acceptance for a while."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def before_accept(connection: object, channel: str, keys: Collection[str | int | None]) -> None:
    """Call the listener, if there is one, before messages are accepted."""
    if _listeners:
        _listeners[-1].before_accept(connection, channel, keys)


def accepted(state: object, uuids: Sequence[str], session: object) -> None:
    """Call the listener, if there is one, with messages that were accepted."""
    if _listeners:
        _listeners[-1].accepted(state, uuids, session)
