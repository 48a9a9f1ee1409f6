"""Erase a person: every message to and from a recipient, with all that was said of it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import TextClause, text

from . import limits, retention
from .state import State


class Erased(NamedTuple):
    """How many messages of a recipient were deleted, and how many are being sent and so were left."""

    deleted: int
    left: int


def erase(state: State, recipient: str) -> Erased:
    """Delete every message to and from a recipient, of all channels, with all that was said of it.

    What is being sent at this moment is left. Opt-outs stay: they are what keeps the recipient from being
    written to again.
    """
    deleted = 0
    while True:
        with state.database.write() as connection:
            ids = list(
                connection.execute(
                    _theirs(" AND m.status <> 'sending' LIMIT 500"), {"who": recipient}
                ).scalars()
            )
            if not ids:
                break
            retention.delete(connection, ids)
            deleted += len(ids)
    with state.database.write() as connection:
        limits.forget(connection, recipient)
        left = len(connection.execute(_theirs(""), {"who": recipient}).all())
    for _ in retention.steps(state, "files dropped", retention.drop_files):
        pass
    return Erased(deleted, left)


def _theirs(more: str) -> TextClause:
    return text(
        "SELECT m.id FROM communication_message AS m WHERE"
        " (m.channel IN ('sms', 'email', 'telephony') AND m.destination = :who"
        " OR m.direction = 'in' AND m.sender = :who"
        " OR m.id IN (SELECT p.message_id FROM communication_recipient AS p WHERE p.address = :who))" + more
    )
