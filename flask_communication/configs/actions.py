"""What may be allowed or refused, as ``authorize`` and the scopes of tokens name it."""

from __future__ import annotations

ACTIONS = {
    "config.read": "see the configurations, without their secrets",
    "config.write": "store and change configurations",
    "config.delete": "delete configurations",
    "message.send": "send messages",
    "message.retry": "send a message again",
    "message.cancel": "stop a message that has not left",
    "message.resolve": "say what became of an unknown message",
    "message.release": "let a held message pass",
    "message.read": "read messages and their delivery reports",
    "inbox.sync": "read the mailboxes now",
    "suppression.read": "see who must not be written to",
    "suppression.write": "put recipients on that list",
    "suppression.delete": "take recipients off that list",
    "health.read": "see the details of the health check",
    "metrics.read": "read the metrics",
    "openapi.read": "read the description of the REST interface",
}


def scopes() -> list[str]:
    """Return what a token may be good for: each action, those of a room (``message.*``), or all (``*``)."""
    rooms = sorted({f"{action.partition('.')[0]}.*" for action in ACTIONS})
    return [*ACTIONS, *rooms, "*"]
