"""The email that belongs to a message: stored with it, loaded for a call, settled for each recipient."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sqlalchemy import Row, TextClause, bindparam, select, text
from sqlalchemy.engine import Connection

from ..delivery import outcomes as verdicts
from ..delivery.outcomes import Order, Result, Verdict
from ..errors import NotSent, OutcomeUnknown, ProviderError, Refused
from ..formats import addresses
from ..formats.text import clean
from ..providers.base import Accepted, File, OutboundEmail, Report
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
OUTCOME = {"id": "bigint", "address": "text", "status": "text", "error": "text", "code": "text"}


@dataclass(frozen=True)
class Draft:
    """A mail to be stored, by the uuid of its message: columns of MAIL, recipients and files."""

    uuid: str
    columns: Mapping[str, Any]
    recipients: Sequence[tuple[str, str]]
    files: Sequence[File]


@dataclass(frozen=True)
class Letter:
    """A stored mail, ready for a call; ``reached`` says that some recipients have it already."""

    email: OutboundEmail
    reached: bool


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


def load(connection: Connection, orders: Sequence[Order], kept: files.Files) -> dict[int, Letter]:
    """Return the letters of those orders that are emails, by message id."""
    mine = {order.row.id: order for order in orders if order.row.channel == "email"}
    if not mine:
        return {}
    mails = connection.execute(select(Mail.__table__).where(Mail.message_id.in_(mine))).all()
    people: dict[int, list[Row[Any]]] = defaultdict(list)
    for person in connection.execute(_PEOPLE, {"ids": list(mine)}):
        people[person.message_id].append(person)
    carried: dict[int, list[Row[Any]]] = defaultdict(list)
    attached = connection.execute(_ATTACHED, {"ids": list(mine)}).all()
    for one in attached:
        carried[one.message_id].append(one)
    contents = kept.get(connection, {one.sha256 for one in attached})
    letters = {
        mail.message_id: _letter(
            mine[mail.message_id], mail, people[mail.message_id], carried[mail.message_id], contents
        )
        for mail in mails
    }
    _remember_ids(connection, [(mail, letters[mail.message_id]) for mail in mails])
    return letters


def _remember_ids(connection: Connection, found: Sequence[tuple[Row[Any], Letter]]) -> None:
    """Store the Message-IDs that could not be known before the sender was."""
    new = [
        {"id": mail.message_id, "name": letter.email.message_id}
        for mail, letter in found
        if mail.rfc_message_id != letter.email.message_id and letter.email.sender
    ]
    if new:
        connection.execute(_remember(dialect_of(connection)), {"rows": as_rows(new)})


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


def _letter(
    order: Order,
    mail: Row[Any],
    people: Sequence[Row[Any]],
    carried: Sequence[Row[Any]],
    contents: Mapping[str, bytes],
) -> Letter:
    pending = [person.address for person in people if person.status is None]
    sender = order.row.sender or str(order.route.config.get("sender") or "")
    email = OutboundEmail(
        key=_key(order, pending, len(people)),
        message_id=_sendable(mail.rfc_message_id)
        or message_id(order.row.uuid, sender or "x@localhost"),
        sender=sender,
        recipients=pending,
        subject=mail.subject,
        body=order.row.body,
        html=mail.html,
        to=mail.mailboxes.get("to", ()),
        cc=mail.mailboxes.get("cc", ()),
        reply_to=mail.mailboxes.get("reply_to", ()),
        headers=mail.headers,
        in_reply_to=mail.in_reply_to,
        references=mail.refs,
        files=[
            File(one.filename, one.content_type, contents[one.sha256], one.content_id)
            for one in carried
        ],
        # To fewer it is another message, and the provider may know nobody's but the whole one.
        provider_ref=order.row.provider_ref
        if order.is_retry and len(pending) == len(people)
        else None,
    )
    return Letter(email, any(person.status in status.REPORTED for person in people))


def _sendable(stored: str | None) -> str | None:
    # An earlier version made some that are not ASCII, which never went out.
    return stored if stored and stored.isascii() else None


def _key(order: Order, pending: Sequence[str], of: int) -> str:
    # For fewer recipients it is another message, which a provider must not take for the first.
    if len(pending) == of:
        return order.key
    return f"{order.key}/{hashlib.sha256(' '.join(pending).encode()).hexdigest()[:12]}"


def ending(
    order: Order, letter: Letter, result: Result, elapsed: float
) -> tuple[Verdict, list[dict[str, Any]]]:
    """Say how a call ended for an email, and for those of its recipients that have an outcome of their own.

    All others share the message's.
    """
    verdict = verdicts.ending(order, result, elapsed)
    if isinstance(result, Accepted) and result.failed:
        return _partly(order, letter, result, verdict)
    if letter.reached and isinstance(result, Refused) and verdict["status"] == status.REJECTED:
        told = dict.fromkeys(letter.email.recipients, result)
        return verdict | {"status": status.SENT, "delay": _asked_after(order)}, _outcomes(
            order, told
        )
    return verdict, []


def _partly(
    order: Order, letter: Letter, result: Accepted, verdict: Verdict
) -> tuple[Verdict, list[dict[str, Any]]]:
    told = {one: result.failed.get(one) for one in letter.email.recipients}
    later = [failure for failure in told.values() if isinstance(failure, NotSent)]
    doubted = [failure for failure in told.values() if isinstance(failure, OutcomeUnknown)]
    failure = (later or doubted or list(result.failed.values()))[0]
    taken = letter.reached or any(one is None for one in told.values())
    own = _outcomes(order, {one: why for one, why in told.items() if not isinstance(why, NotSent)})
    said = {"error": clean(_names(told, failure)), "code": failure.code and clean(failure.code, 50)}
    if later:
        again = verdicts.ending(order, failure, 0.0)
        return verdict | said | {"status": status.QUEUED, "delay": again["delay"]}, own
    if doubted:
        return verdict | said | {"status": status.UNKNOWN, "delay": None}, own
    return verdict | said | {"status": status.SENT if taken else status.REJECTED}, own


def _names(told: Mapping[str, ProviderError | None], failure: ProviderError) -> str:
    failed = [one for one, why in told.items() if why is not None]
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"{failed[0]}{more}: {failure.reason}"


def _asked_after(order: Order) -> float:
    return float(order.route.provider.report_after) if order.route.provider else 60.0


def _outcomes(order: Order, told: Mapping[str, ProviderError | None]) -> list[dict[str, Any]]:
    kinds = {Refused: status.REJECTED, OutcomeUnknown: status.UNKNOWN}
    return [
        {
            "id": order.row.id,
            "address": address,
            "status": next(
                (word for kind, word in kinds.items() if isinstance(why, kind)), status.SENT
            ),
            "error": why and clean(why.reason),
            "code": why and why.code and clean(why.code, 50),
        }
        for address, why in told.items()
    ]


def settle(connection: Connection, outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Write down the outcomes of single recipients."""
    if outcomes:
        connection.execute(_settle(dialect_of(connection)), {"rows": as_rows(outcomes)})


@cache
def _settle(dialect: Dialect) -> TextClause:
    return text(
        "UPDATE communication_recipient AS p SET status = r.status, error = r.error, error_code = "
        "r.code"
        f" FROM {dialect.rows(OUTCOME)} AS r WHERE p.message_id = r.id AND p.address = r.address"
    )


def report(
    connection: Connection, config_id: int, found: Sequence[Report]
) -> tuple[list[Report], list[Report]]:
    """Apply reports about single recipients; return those that were news, and what follows for messages.

    A message ends when the last of its recipients has an outcome of its own: as delivered if it
    reached anybody, else as undelivered.
    """
    news: list[Report] = []
    told: list[Report] = []
    for one in found:
        moved = connection.execute(
            _report(dialect_of(connection)), _reported(config_id, one)
        ).scalar()
        if moved is not None:
            news.append(one)
            states = connection.execute(_STATES, {"id": moved}).scalars().all()
            if None not in states:
                best = max(states, key=lambda state: status.RANK[state])
                told.append(
                    replace(one, status=best if best in status.REPORTED else status.UNDELIVERED)
                )
    return news, told


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


@cache
def _report(dialect: Dialect) -> TextClause:
    ranks = " ".join(f"WHEN '{name}' THEN {rank}" for name, rank in status.RANK.items())
    return text(
        "UPDATE communication_recipient SET status = :status, error = :error, error_code = :code"
        " WHERE message_id IN (SELECT id FROM communication_message"
        " WHERE config_id = :config_id AND provider_ref = :ref)"
        f" AND lower(address) = lower(:address) AND COALESCE(CASE status {ranks} END, 0) < :rank"
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


# Those that an email certainly did not reach, as SQL.
REFUSED = f"'{status.REJECTED}', '{status.UNDELIVERED}'"


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
    """Let a message that is sent again go to those that were refused, and to nobody else."""
    connection.execute(
        text(
            "UPDATE communication_recipient SET status = NULL, error = NULL, error_code = NULL"
            f" WHERE message_id = :id AND status IN ({REFUSED})"
        ),
        {"id": message_id},
    )
