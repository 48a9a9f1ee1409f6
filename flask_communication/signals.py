"""The signals that a host may connect to, and how they are sent.

A signal is sent after the change is committed, in the process that made it (mostly a worker), with
the application as sender. Receivers of a message's signal get the keywords ``message_uuid``,
``channel`` and ``status``. Receivers of a configuration's signal get ``config_id``, ``state``,
``seconds`` (None: until the configuration is changed) and ``reason``. A receiver that raises is
logged, and the others are called all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
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
