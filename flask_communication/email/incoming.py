"""Incoming mail, put where it belongs: stored once, in its conversation.

What came back is told of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Row, TextClause, bindparam, select, text
from sqlalchemy.engine import Connection

from ..delivery import reports
from ..delivery.policy import suppression
from ..delivery.policy.suppression import NewSuppression
from ..errors import FileNotFound
from ..formats.text import clean
from ..providers.base import File, InboundEmail, Report
from ..storage import files, messages
from ..storage.dialect import Dialect, as_rows, dialect_of
from ..storage.models import Mail, Message, StoredFile
from ..storage.models.status import DELIVERED, RECEIVED, SENT, UNDELIVERED
from . import records
from .channel import CHANNEL

if TYPE_CHECKING:
    from ..configs.state import State
    from ..formats.bounces import Failed
    from ..formats.mail import Letter

_RECEIVED = {
    "uuid": "text",
    "destination": "text",
    "sender": "text",
    "body": "text",
    "reached_at": "timestamptz",
}
# What RFC 3464 §2.3.3 calls what happened. That it is delayed is no news: a later mail ends it.
_ACTIONS = {"failed": UNDELIVERED, "delivered": DELIVERED, "relayed": SENT, "expanded": SENT}
# The classes of status (RFC 3463) that say the same as the action; a last try may end with a 4.
_CLASSES = {"failed": ("4.", "5.")}
# There is no such mailbox, or it takes nothing any more (RFC 3463 §3.2, §3.3; RFC 7505).
_NOBODY = ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1")


@dataclass(frozen=True)
class Arrival:
    """A mail that came in, as it came and as it could be read."""

    mail: InboundEmail
    letter: Letter
    fingerprint: str

    @property
    def problem(self) -> str | None:
        """What a person should know of it, or None if all is well."""
        said = [one for one in (self.mail.flaw, self.letter.problem) if one]
        return clean("; ".join(said)) if said else None


def opened(config_id: int, mail: InboundEmail) -> Arrival:
    """Read a mail; never raises."""
    # The same bytes are the same mail, also where a mailbox numbers its mails anew.
    told = mail.raw or mail.uid.encode("utf-8", "replace")
    fingerprint = hashlib.sha256(f"{config_id}\x1f".encode() + told).hexdigest()
    from ..formats import mail as letters

    return Arrival(mail, letters.read(mail.raw), fingerprint)


def unreadable(arrival: Arrival, why: str) -> Arrival:
    """Return the same mail with nothing of it read, for one that could not be stored as it was read."""
    from ..formats import mail as letters

    return Arrival(arrival.mail, letters.unread(f"could not be read: {why}"), arrival.fingerprint)


def file(
    connection: Connection, config_id: int, arrivals: Iterable[Arrival]
) -> list[dict[str, Any]]:
    """Store the mails that are new; return the messages that came or moved, to be announced.

    Each has ``uuid``, ``channel`` and ``status``.
    """
    unique = {one.fingerprint: one for one in arrivals}
    old = set(connection.scalars(select(Mail.arrival).where(Mail.arrival.in_(unique))))
    named = {str(uuid4()): one for fingerprint, one in unique.items() if fingerprint not in old}
    if not named:
        return []
    _store(connection, config_id, named)
    _join(connection, {uuid: one.letter for uuid, one in named.items()})
    moved = _returned(connection, [one.letter for one in named.values() if one.letter.bounce])
    came = [{"uuid": uuid, "channel": "email", "status": RECEIVED} for uuid in named]
    return came + [
        {name: getattr(row, name) for name in ("uuid", "channel", "status")} for row in moved
    ]


def _store(connection: Connection, config_id: int, named: Mapping[str, Arrival]) -> None:
    dialect = dialect_of(connection)
    rows = [_message(dialect, uuid, one) for uuid, one in named.items()]
    connection.execute(_insert(dialect), {"rows": as_rows(rows), "config_id": config_id})
    files.store(connection, [one.mail.raw for one in named.values() if one.mail.raw])
    records.store(connection, [_draft(uuid, one) for uuid, one in named.items()])


def _message(dialect: Dialect, uuid: str, arrival: Arrival) -> dict[str, Any]:
    letter = arrival.letter
    reached = arrival.mail.received_at or letter.sent_at
    return {
        "uuid": uuid,
        "destination": letter.recipients[0][1] if letter.recipients else "",
        "sender": letter.sender or None,
        "body": letter.text,
        "reached_at": reached and dialect.time(reached),
    }


def _draft(uuid: str, arrival: Arrival) -> records.Draft:
    letter = arrival.letter
    columns = {
        "rfc_message_id": letter.message_id,
        "subject": letter.subject,
        "html": letter.html,
        "mailboxes": letter.mailboxes,
        "headers": letter.headers,
        "in_reply_to": letter.in_reply_to,
        "refs": letter.references,
        "raw_sha256": files.sha256(arrival.mail.raw) if arrival.mail.raw else None,
        "problem": arrival.problem,
        "arrival": arrival.fingerprint,
    }
    carried = [
        File(one.filename, one.content_type, one.content, one.content_id) for one in letter.files
    ]
    return records.Draft(uuid, columns, letter.recipients, carried)


@cache
def _insert(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_message (uuid, channel, direction, status, destination, "
        "sender, body, config_id, route_id, priority, expires_at, sent_at, fence, tries, crashes, "
        f"resends, created_at, updated_at) SELECT r.uuid, 'email', 'in', '{RECEIVED}', "
        "r.destination, r.sender, r.body, CAST(:config_id AS int), CAST(:config_id AS int), 5, "
        f"{dialect.now}, r.reached_at, 0, 0, 0, 0, {dialect.now}, {dialect.now} FROM "
        f"{dialect.rows(_RECEIVED)} AS r WHERE true"
    )


def raw(state: State, uuid: str) -> bytes:
    """Return an incoming email as it came.

    Raise :class:`MessageNotFound` or :class:`FileNotFound`.
    """
    wanted = (
        select(StoredFile.content)
        .join(Mail, Mail.raw_sha256 == StoredFile.sha256)
        .join(Message, Message.id == Mail.message_id)
        .where(Message.uuid == str(uuid))
    )
    with state.database.read() as connection:
        found = connection.scalar(wanted)
    if found is None:
        came = messages.get(state, "email", uuid).direction == "in"
        why = (
            "nothing of it is kept as it came"
            if came
            else "it was sent from here, and did not come in"
        )
        raise FileNotFound(f"email {uuid} has no raw mail: {why}")
    return bytes(found)


# --- Conversations
# -----------------------------------------------------------------------------------


def _join(connection: Connection, named: Mapping[str, Letter]) -> None:
    """Put mails into the conversations that they answer to (RFC 5322 §3.6.4)."""
    answers = {uuid: _answers_to(letter) for uuid, letter in named.items()}
    wanted = sorted({one for names in answers.values() for one in names})
    if not wanted:
        return
    roots: dict[str, int] = {}
    for row in connection.execute(_NAMED, {"names": wanted}):
        # Who came first keeps the name: a later mail may claim any.
        roots.setdefault(row.rfc_message_id, row.thread_id or row.message_id)
    joined = []
    for uuid, names in answers.items():
        root = next((roots[one] for one in names if one in roots), None)
        if root is not None:
            joined.append({"uuid": uuid, "thread_id": root})
            # What comes after it in this batch may know no other of this conversation.
            roots[named[uuid].message_id or ""] = root
    if joined:
        connection.execute(_thread(dialect_of(connection)), {"rows": as_rows(joined)})


def _answers_to(letter: Letter) -> list[str]:
    # The oldest first: that is where the conversation began.
    names = [*letter.references, letter.in_reply_to]
    if letter.bounce is not None:
        names.append(letter.bounce.message_id)
    return list(dict.fromkeys(one for one in names if one and one != letter.message_id))


_NAMED = text(
    "SELECT rfc_message_id, message_id, thread_id FROM communication_mail"
    " WHERE rfc_message_id IN :names ORDER BY message_id"
).bindparams(bindparam("names", expanding=True))


@cache
def _thread(dialect: Dialect) -> TextClause:
    return text(
        "UPDATE communication_mail AS e SET thread_id = r.thread_id"
        f" FROM {dialect.rows({'uuid': 'text', 'thread_id': 'bigint'})} AS r"
        " JOIN communication_message AS m ON m.uuid = r.uuid"
        " WHERE e.message_id = m.id AND r.thread_id <> e.message_id"
    )


# --- What came back
# ----------------------------------------------------------------------------------


def _returned(connection: Connection, found: Sequence[Letter]) -> list[Row[Any]]:
    """Apply what mail servers say of emails of ours; return the messages that moved."""
    names = sorted({one.bounce.message_id for one in found if one.bounce and one.bounce.message_id})
    if not names:
        return []
    ours = {row.rfc_message_id: row for row in connection.execute(_OURS, {"names": names})}
    moved: list[Row[Any]] = []
    for letter in found:
        assert letter.bounce is not None
        row = ours.get(letter.bounce.message_id or "")
        if row is not None:
            people = connection.scalars(_PEOPLE, {"id": row.id}).all()
            moved += _apply(connection, row, people, letter.bounce.recipients)
    return moved


_OURS = text(
    "SELECT e.rfc_message_id, m.id, m.config_id, m.route_id, m.sender, m.provider_ref"
    " FROM communication_mail AS e JOIN communication_message AS m ON m.id = e.message_id"
    " WHERE e.rfc_message_id IN :names AND m.direction = 'out' AND m.config_id IS NOT NULL ORDER BY"
    " m.id"
).bindparams(bindparam("names", expanding=True))
_PEOPLE = text("SELECT address FROM communication_recipient WHERE message_id = :id")


def _told(people: Sequence[str], said: Sequence[Failed]) -> list[tuple[str, Failed]]:
    """Return what is believed of what was said: what names strangers, or contradicts itself, is not."""
    ours = {one.lower(): one for one in people}
    told = [(ours[one.address.lower()], one) for one in said if one.address.lower() in ours]
    return [
        (address, one)
        for address, one in told
        if one.action in _ACTIONS
        and (one.status or "").startswith(_CLASSES.get(one.action, ("2.",)))
    ]


def _apply(
    connection: Connection, row: Row[Any], people: Sequence[str], said: Sequence[Failed]
) -> list[Row[Any]]:
    news = _told(people, said)
    # Only the recipient, and the servers on the way to it, know the Message-ID of a mail to one.
    # That of a mail to several each of them knows, and could write such a report about the others.
    alone = len(people) == 1
    if not alone:
        news = [(address, one) for address, one in news if one.action == "failed"]
    if not news:
        return []
    ref = row.provider_ref
    if ref is None:
        # In doubt until now; that it came back is the proof that it had left.
        ref = row.rfc_message_id
        connection.execute(_REMEMBER, {"id": row.id, "ref": ref[:255]})
    found = [
        Report(ref[:255], _ACTIONS[one.action], one.diagnostic, one.status, recipient=address)
        for address, one in news
    ]
    gone = [one for one in news if alone and one[1].action == "failed" and one[1].status in _NOBODY]
    suppression.store(connection, [_bounced(row, address, one.diagnostic) for address, one in gone])
    return reports.apply(connection, CHANNEL, row.config_id, found)


_REMEMBER = text(
    "UPDATE communication_message SET provider_ref = :ref WHERE id = :id AND provider_ref IS NULL"
)


def _bounced(row: Row[Any], address: str, said: str | None) -> NewSuppression:
    scope = CHANNEL.scope(row.sender, row.route_id or row.config_id)
    return NewSuppression("email", address.lower(), scope, "bounce", clean(said) if said else None)
