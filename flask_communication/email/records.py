"""The SQL of emails: the mail, the recipients and the files that belong to a message."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

from sqlalchemy import Row, TextClause, bindparam, select, text
from sqlalchemy.engine import Connection

from ..delivery.channel import Applied
from ..delivery.policy.suppression import REMEDY, Asked
from ..delivery.transitions import RecipientOutcome
from ..formats import addresses
from ..formats.text import clean
from ..providers.base import File, Report, ReportStatus
from ..storage import files
from ..storage.dialect import Dialect, as_rows, dialect_of
from ..storage.models import Mail, status

MAIL = {
    "uuid": "text",
    "rfc_message_id": "text",
    "subject": "text",
    "html": "text",
    "mailboxes": "json",
    "headers": "json",
    "in_reply_to": "text",
    "refs": "json",
    "thread_id": "bigint",
    "raw_sha256": "text",
    "problem": "text",
    "arrival": "text",
}
RECIPIENT = {"uuid": "text", "address": "text", "kind": "text", "place": "int"}
ATTACHMENT = {
    "uuid": "text",
    "place": "int",
    "sha256": "text",
    "filename": "text",
    "content_type": "text",
    "content_id": "text",
}


@dataclass(frozen=True)
class Draft:
    """A mail to be stored, by the uuid of its message: columns of MAIL, recipients and files."""

    uuid: str
    columns: Mapping[str, Any]
    recipients: Sequence[tuple[str, str]]
    files: Sequence[File]


@dataclass(frozen=True)
class StoredMail:
    """A mail with its recipients and its files, as it is loaded for a request."""

    row: Row[Any]
    people: Sequence[Row[Any]]
    files: Sequence[File]


def addressed(draft: Draft, uuid: str, sender: str | None) -> Draft:
    """Return the draft with the uuid of its message, and the Message-ID that follows from it."""
    columns = {**draft.columns, "rfc_message_id": sender and message_id(uuid, sender)}
    return replace(draft, uuid=uuid, columns=columns)


def message_id(uuid: str, sender: str) -> str:
    """Return our Message-ID of a message, the same for every attempt (RFC 5322 §3.6.4)."""
    domain = addresses.canonical(addresses.bare(sender)).rpartition("@")[2]
    # One that cannot be is refused as a sender, with words.
    return f"<{uuid}@{domain if domain.isascii() else 'localhost'}>"


def store(connection: Connection, drafts: Sequence[Draft]) -> None:
    """Insert the mails of messages that were inserted in this transaction.

    Files are stored once.
    """
    if not drafts:
        return
    files.store(connection, [file.content for draft in drafts for file in draft.files])
    blank = dict.fromkeys(MAIL)
    rows = [{**blank, **draft.columns, "uuid": draft.uuid} for draft in drafts]
    connection.execute(_insert_mails(dialect_of(connection)), {"rows": as_rows(rows)})
    people = [
        {"uuid": draft.uuid, "address": address, "kind": kind, "place": place}
        for draft in drafts
        for place, (kind, address) in enumerate(draft.recipients)
    ]
    connection.execute(_insert_recipients(dialect_of(connection)), {"rows": as_rows(people)})
    carried = [
        {
            "uuid": draft.uuid,
            "place": place,
            "sha256": files.sha256(file.content),
            "filename": file.filename,
            "content_type": file.content_type,
            "content_id": file.content_id,
        }
        for draft in drafts
        for place, file in enumerate(draft.files)
    ]
    if carried:
        connection.execute(_insert_attachments(dialect_of(connection)), {"rows": as_rows(carried)})


@cache
def _insert_mails(dialect: Dialect) -> TextClause:
    names = ", ".join(name for name in MAIL if name != "uuid")
    values = ", ".join(f"r.{name}" for name in MAIL if name != "uuid")
    return text(
        f"INSERT INTO communication_mail (message_id, {names}) SELECT m.id, {values}"
        f" FROM {dialect.rows(MAIL)} AS r JOIN communication_message AS m ON m.uuid = r.uuid"
    )


@cache
def _insert_recipients(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_recipient (message_id, address, kind, place)"
        " SELECT m.id, r.address, r.kind, r.place"
        f" FROM {dialect.rows(RECIPIENT)} AS r JOIN communication_message AS m ON m.uuid = r.uuid"
    )


@cache
def _insert_attachments(dialect: Dialect) -> TextClause:
    return text(
        "INSERT INTO communication_attachment"
        " (message_id, place, sha256, filename, content_type, content_id)"
        " SELECT m.id, r.place, r.sha256, r.filename, r.content_type, r.content_id"
        f" FROM {dialect.rows(ATTACHMENT)} AS r JOIN communication_message AS m ON m.uuid = r.uuid"
    )


def load(
    connection: Connection, message_ids: Sequence[int], kept: files.Files
) -> dict[int, StoredMail]:
    """Return the mails of these messages, by message id."""
    ids = list(message_ids)
    mails = connection.execute(select(Mail.__table__).where(Mail.message_id.in_(ids))).all()
    people: dict[int, list[Row[Any]]] = defaultdict(list)
    for person in connection.execute(_PEOPLE, {"ids": ids}):
        people[person.message_id].append(person)
    attached = connection.execute(_ATTACHED, {"ids": ids}).all()
    contents = kept.get(connection, {one.sha256 for one in attached})
    carried: dict[int, list[File]] = defaultdict(list)
    for one in attached:
        content = contents[one.sha256]
        file = File(one.filename, one.content_type, content, one.content_id)
        carried[one.message_id].append(file)
    return {
        mail.message_id: StoredMail(mail, people[mail.message_id], carried[mail.message_id])
        for mail in mails
    }


def remember_ids(connection: Connection, names: Mapping[int, str]) -> None:
    """Store the Message-IDs that could not be known before the sender was: message id -> name."""
    rows = [{"id": message_id, "name": name} for message_id, name in names.items()]
    if rows:
        connection.execute(_remember(dialect_of(connection)), {"rows": as_rows(rows)})


@cache
def _remember(dialect: Dialect) -> TextClause:
    return text(
        "UPDATE communication_mail AS e SET rfc_message_id = r.name"
        f" FROM {dialect.rows({'id': 'bigint', 'name': 'text'})} AS r WHERE e.message_id = r.id"
    )


_PEOPLE = text(
    "SELECT message_id, address, status FROM communication_recipient WHERE message_id IN :ids"
    " ORDER BY message_id, place"
).bindparams(bindparam("ids", expanding=True))
_ATTACHED = text(
    "SELECT message_id, sha256, filename, content_type, content_id FROM communication_attachment"
    " WHERE message_id IN :ids ORDER BY message_id, place"
).bindparams(bindparam("ids", expanding=True))


def settle(connection: Connection, outcomes: Sequence[RecipientOutcome]) -> None:
    """Store the outcomes of single recipients."""
    if outcomes:
        connection.execute(_settle(dialect_of(connection)), {"rows": as_rows(outcomes)})


@cache
def _settle(dialect: Dialect) -> TextClause:
    return text(
        "UPDATE communication_recipient AS p SET status = r.status, error = r.error, error_code = "
        "r.code"
        f" FROM {dialect.rows(RecipientOutcome)} AS r"
        " WHERE p.message_id = r.id AND p.address = r.address"
    )


def report(connection: Connection, config_id: int, found: Sequence[Report]) -> Applied:
    """Apply reports about single recipients; return what was news, and what follows for messages.

    A message ends when the last of its recipients has an outcome of its own: as delivered if it
    reached anybody, else as undelivered.
    """
    news: list[Report] = []
    follows: list[Report] = []
    for one in found:
        moved = connection.execute(_REPORT, _reported(config_id, one)).scalar()
        if moved is not None:
            news.append(one)
            states = connection.execute(_STATES, {"id": moved}).scalars().all()
            if None not in states:
                best = max(states, key=lambda state: status.RANK[state])
                ended = best if best in status.REPORTED else status.UNDELIVERED
                follows.append(replace(one, status=cast("ReportStatus", ended)))
    return Applied(news, follows)


def _reported(config_id: int, one: Report) -> dict[str, Any]:
    return {
        "config_id": config_id,
        "ref": one.ref,
        "address": one.recipient,
        "status": one.status,
        "rank": status.RANK[one.status],
        "error": one.detail and clean(one.detail) if one.status == status.UNDELIVERED else None,
        "code": one.code and clean(one.code, 50) if one.status == status.UNDELIVERED else None,
    }


_RANKS = " ".join(f"WHEN '{name}' THEN {rank}" for name, rank in status.RANK.items())
_REPORT = text(
    "UPDATE communication_recipient SET status = :status, error = :error, error_code = :code"
    " WHERE message_id IN (SELECT id FROM communication_message"
    " WHERE config_id = :config_id AND provider_ref = :ref)"
    f" AND lower(address) = lower(:address) AND COALESCE(CASE status {_RANKS} END, 0) < :rank"
    " RETURNING message_id"
)
_STATES = text("SELECT status FROM communication_recipient WHERE message_id = :id")


def reopen(connection: Connection, message_id: int, *, everybody: bool) -> None:
    """Let a message that is sent again go to those it has not reached, or to everybody."""
    reached = ", ".join(f"'{one}'" for one in sorted(status.REPORTED - {status.UNDELIVERED}))
    which = "" if everybody else f" AND status NOT IN ({reached})"
    connection.execute(
        text(
            "UPDATE communication_recipient SET status = NULL, error = NULL, error_code = NULL"
            f" WHERE message_id = :id AND status IS NOT NULL{which}"
        ),
        {"id": message_id},
    )


# The recipients that an email certainly did not reach, as SQL.
_UNREACHED = ", ".join(f"'{one}'" for one in sorted(status.UNREACHED))


def part(connection: Connection, uuid: str) -> None:
    """Let the recipients of an email that arrived, who share its status, keep it as their own."""
    reached = ", ".join(f"'{one}'" for one in sorted(status.REPORTED - {status.UNDELIVERED}))
    connection.execute(
        text(
            "UPDATE communication_recipient SET status = (SELECT m.status FROM "
            "communication_message AS m"
            " WHERE m.id = message_id) WHERE status IS NULL AND message_id IN"
            f" (SELECT id FROM communication_message WHERE uuid = :uuid AND status IN ({reached}))"
        ),
        {"uuid": uuid},
    )


def reopen_refused(connection: Connection, message_id: int) -> None:
    """Let a message that is sent again go only to those that were refused."""
    connection.execute(
        text(
            "UPDATE communication_recipient SET status = NULL, error = NULL, error_code = NULL"
            f" WHERE message_id = :id AND status IN ({_UNREACHED})"
        ),
        {"id": message_id},
    )


# --- Suppressed recipients

_SUPPRESSED = "suppressed"
_TAKE_OUT = {"id": "bigint", "scope": "text", "asked_for": "text"}


def take_out_suppressed(
    connection: Connection, asked: Sequence[Asked]
) -> dict[int, tuple[str, str]]:
    """Take suppressed recipients out of claimed emails; return those that have none left.

    They come as id -> (status, why). Each recipient that is taken out is ``rejected``, and has the
    reason.
    """
    if not asked:
        return {}
    sql = _take_out(dialect_of(connection))
    taken = connection.scalars(sql, {"rows": as_rows(asked)}).all()
    if not taken:
        return {}
    states: dict[int, list[Row[Any]]] = defaultdict(list)
    for person in connection.execute(_OUTCOMES, {"ids": sorted(set(taken))}):
        states[person.message_id].append(person)
    return {
        one: _end(people)
        for one, people in states.items()
        if all(person.status is not None for person in people)
    }


def _end(people: Sequence[Row[Any]]) -> tuple[str, str]:
    why = next(person.error for person in people if person.error_code == _SUPPRESSED)
    is_sent = any(person.status in status.REPORTED for person in people)
    return (status.SENT if is_sent else status.REJECTED), why


_OUTCOMES = text(
    "SELECT message_id, status, error, error_code FROM communication_recipient"
    " WHERE message_id IN :ids"
).bindparams(bindparam("ids", expanding=True))


@cache
def _take_out(dialect: Dialect) -> TextClause:
    by = "CASE WHEN s.scope = '' THEN 'every sender' ELSE s.scope END"
    why = f"'the recipient is suppressed for ' || {by} || ' (' || s.reason || '); {REMEDY}'"
    prefix = "p." if dialect.name == "postgresql" else ""
    return text(
        f"UPDATE communication_recipient AS p SET status = '{status.REJECTED}',"
        f" error_code = '{_SUPPRESSED}', error = {why}"
        f" FROM {dialect.rows(_TAKE_OUT)} AS r, communication_suppression AS s"
        " WHERE p.message_id = r.id AND p.status IS NULL AND s.channel = 'email'"
        " AND s.destination = lower(p.address) AND s.scope IN ('', r.scope, r.asked_for)"
        f" RETURNING {prefix}message_id"
    )
