"""Erase a person: every message to and from a recipient, with all that was said of it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import TextClause, bindparam, text

from ..configs.state import State
from ..delivery.policy import limits
from ..errors import InvalidQuery
from . import retention
from .messages import stored_spellings


class Erased(NamedTuple):
    """How many messages of a recipient were deleted, and how many are being sent and so were left."""

    deleted: int
    left: int


def erase(state: State, recipient: str) -> Erased:
    """Delete every message to and from a recipient, of all channels, with all that was said of it.

    A number may be spaced, an address capitalised in any way. What is being sent at this moment is
    left. Opt-outs stay: they are what keeps the recipient from being written to again. Raises
    :class:`InvalidQuery` for nobody.
    """
    if not isinstance(recipient, str) or not recipient.strip():
        raise InvalidQuery({"recipient": ["must be a number or an address"]})
    with state.database.read() as connection:
        forms = stored_spellings(connection, recipient, state.settings.default_region)
    given = {"forms": forms, "lowered": [one.lower() for one in forms]}
    deleted = 0
    while True:
        with state.database.write() as connection:
            ids = list(
                connection.execute(_theirs(" AND m.status <> 'sending' LIMIT 500"), given).scalars()
            )
            if not ids:
                break
            retention.delete(connection, ids)
            deleted += len(ids)
    with state.database.write() as connection:
        for one in forms:
            limits.forget(connection, one)
        left = len(connection.execute(_theirs(""), given).all())
    for _ in retention.steps(state, "files dropped", retention.drop_files):
        pass
    return Erased(deleted, left)


def _theirs(more: str) -> TextClause:
    return text(
        "SELECT m.id FROM communication_message AS m WHERE"
        " (m.channel IN ('sms', 'email', 'telephony') AND m.destination IN :forms"
        " OR m.direction = 'in' AND lower(m.sender) IN :lowered"
        " OR m.id IN (SELECT p.message_id FROM communication_recipient AS p WHERE p.address IN"
        " :forms))" + more
    ).bindparams(bindparam("forms", expanding=True), bindparam("lowered", expanding=True))
