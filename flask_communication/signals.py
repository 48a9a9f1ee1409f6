"""Signals a host may listen to; each is sent by the application, after the change is committed.

Receivers get ``app`` as sender. Those of a message get ``message_uuid``, ``channel`` and ``status``
as keywords, those of a configuration ``config_id``, ``state``, ``seconds`` (None: until it is
changed) and ``reason``. They run in whatever process made the change, mostly a worker. A receiver
that raises is logged and ignored.
"""

from __future__ import annotations

from blinker import Namespace

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
    "A configuration failed too often, or refuses us: nothing goes by it.",
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
