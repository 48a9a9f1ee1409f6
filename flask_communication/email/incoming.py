"""Store incoming mails: each once, in its conversation, and apply bounces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import TextClause, bindparam, select, text
from sqlalchemy.engine import Connection

from ..delivery.channel import Channel
from ..errors import FileNotFound
from ..formats.text import clean
from ..providers.base import InboundEmail
from ..storage import files, messages
from ..storage.dialect import Dialect, as_rows, dialect_of
from ..storage.models import Mail, Message, StoredFile
from ..storage.models.status import RECEIVED
from . import bounces, records

if TYPE_CHECKING:
    from ..configs.state import State
    from ..formats.mail import ParsedMail

_RECEIVED = {
    "uuid": "text",
    "destination": "text",
    "sender": "text",
    "body": "text",
    "reached_at": "timestamptz",
}


@dataclass(frozen=True)
class IncomingMail:
    """A mail as the provider fetched it, and as it was parsed; ``fingerprint`` identifies it."""

    fetched: InboundEmail
    parsed: ParsedMail
    fingerprint: str

    @property
    def problem(self) -> str | None:
        """What could not be fetched or parsed, for a person; None if all is well."""
        problems = [one for one in (self.fetched.flaw, self.parsed.problem) if one]
        return clean("; ".join(problems)) if problems else None


def parse(config_id: int, fetched: InboundEmail) -> IncomingMail:
    """Parse a fetched mail; never raises."""
    from ..formats import mail

    # The same bytes are the same mail, also where a mailbox numbers its mails anew.
    identity = fetched.raw or fetched.uid.encode("utf-8", "replace")
    fingerprint = hashlib.sha256(f"{config_id}\x1f".encode() + identity).hexdigest()
    return IncomingMail(fetched, mail.parse(fetched.raw), fingerprint)


def without_content(incoming: IncomingMail, why: str) -> IncomingMail:
    """Return the same mail as if nothing could be parsed, for one that cannot be stored."""
    from ..formats import mail

    parsed = mail.unreadable(f"could not be read: {why}")
    return IncomingMail(incoming.fetched, parsed, incoming.fingerprint)


def store(
    connection: Connection, channel: Channel, config_id: int, mails: Iterable[IncomingMail]
) -> list[dict[str, Any]]:
    """Store the mails that are new, and apply the bounces among them.

    Returns ``uuid``, ``channel`` and ``status`` of each message that came or changed.
    """
    unique = {one.fingerprint: one for one in mails}
    old = set(connection.scalars(select(Mail.arrival).where(Mail.arrival.in_(unique))))
    new = {str(uuid4()): one for fingerprint, one in unique.items() if fingerprint not in old}
    if not new:
        return []
    _insert(connection, config_id, new)
    _join_conversations(connection, {uuid: one.parsed for uuid, one in new.items()})
    changed = bounces.apply(connection, channel, [one.parsed.bounce for one in new.values()])
    came = [{"uuid": uuid, "channel": channel.name, "status": RECEIVED} for uuid in new]
    return came + [
        {name: getattr(row, name) for name in ("uuid", "channel", "status")} for row in changed
    ]


def _insert(connection: Connection, config_id: int, new: Mapping[str, IncomingMail]) -> None:
    dialect = dialect_of(connection)
    rows = [_message(dialect, uuid, one) for uuid, one in new.items()]
    connection.execute(_insert_messages(dialect), {"rows": as_rows(rows), "config_id": config_id})
    files.store(connection, [one.fetched.raw for one in new.values() if one.fetched.raw])
    records.store(connection, [_draft(uuid, one) for uuid, one in new.items()])


def _message(dialect: Dialect, uuid: str, incoming: IncomingMail) -> dict[str, Any]:
    parsed = incoming.parsed
    reached = incoming.fetched.received_at or parsed.sent_at
    return {
        "uuid": uuid,
        "destination": parsed.recipients[0][1] if parsed.recipients else "",
        "sender": parsed.sender or None,
        "body": parsed.text,
        "reached_at": reached and dialect.time(reached),
    }


def _draft(uuid: str, incoming: IncomingMail) -> records.Draft:
    parsed, raw = incoming.parsed, incoming.fetched.raw
    columns = {
        "rfc_message_id": parsed.message_id,
        "subject": parsed.subject,
        "html": parsed.html,
        "mailboxes": parsed.mailboxes,
        "headers": parsed.headers,
        "in_reply_to": parsed.in_reply_to,
        "refs": parsed.references,
        "raw_sha256": files.sha256(raw) if raw else None,
        "problem": incoming.problem,
        "arrival": incoming.fingerprint,
    }
    return records.Draft(uuid, columns, parsed.recipients, parsed.files)


@cache
def _insert_messages(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_message (uuid, channel, direction, status, destination, "
        "sender, body, config_id, route_id, priority, expires_at, sent_at, fence, tries, crashes, "
        f"resends, created_at, updated_at) SELECT r.uuid, 'email', 'in', '{RECEIVED}', "
        "r.destination, r.sender, r.body, CAST(:config_id AS int), CAST(:config_id AS int), 5, "
        f"{dialect.now}, r.reached_at, 0, 0, 0, 0, {dialect.now}, {dialect.now} FROM "
        f"{dialect.rows(_RECEIVED)} AS r WHERE true"
    )


def raw(state: State, uuid: str) -> bytes:
    """Return an incoming email as it came, byte by byte.

    Raises :class:`MessageNotFound` and :class:`FileNotFound`.
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
        came = messages.get(state.database, "email", uuid).direction == "in"
        why = (
            "nothing of it is kept as it came"
            if came
            else "it was sent from here, and did not come in"
        )
        raise FileNotFound(f"email {uuid} has no raw mail: {why}")
    return bytes(found)


# --- Conversations


def _join_conversations(connection: Connection, named: Mapping[str, ParsedMail]) -> None:
    """Put mails into the conversations that they answer (RFC 5322 §3.6.4)."""
    answers = {uuid: _answers_to(parsed) for uuid, parsed in named.items()}
    wanted = sorted({one for names in answers.values() for one in names})
    if not wanted:
        return
    roots: dict[str, int] = {}
    for row in connection.execute(_BY_MESSAGE_ID, {"names": wanted}):
        # The first mail with a Message-ID keeps it: a later one may claim any.
        roots.setdefault(row.rfc_message_id, row.thread_id or row.message_id)
    joined = []
    for uuid, names in answers.items():
        root = next((roots[one] for one in names if one in roots), None)
        if root is not None:
            joined.append({"uuid": uuid, "thread_id": root})
            # What comes after it in this batch may know no other of this conversation.
            roots[named[uuid].message_id or ""] = root
    if joined:
        connection.execute(_set_thread(dialect_of(connection)), {"rows": as_rows(joined)})


def _answers_to(parsed: ParsedMail) -> list[str]:
    # The oldest first: that is where the conversation began.
    names = [*parsed.references, parsed.in_reply_to]
    if parsed.bounce is not None:
        names.append(parsed.bounce.message_id)
    return list(dict.fromkeys(one for one in names if one and one != parsed.message_id))


_BY_MESSAGE_ID = text(
    "SELECT rfc_message_id, message_id, thread_id FROM communication_mail"
    " WHERE rfc_message_id IN :names ORDER BY message_id"
).bindparams(bindparam("names", expanding=True))


@cache
def _set_thread(dialect: Dialect) -> TextClause:
    return text(
        "UPDATE communication_mail AS e SET thread_id = r.thread_id"
        f" FROM {dialect.rows({'uuid': 'text', 'thread_id': 'bigint'})} AS r"
        " JOIN communication_message AS m ON m.uuid = r.uuid"
        " WHERE e.message_id = m.id AND r.thread_id <> e.message_id"
    )
