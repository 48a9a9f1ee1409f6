"""Apply bounces to the emails that they are about, and suppress addresses that do not exist.

Anybody can write a bounce. It counts only as far as a stranger could not have written it: see
"What a bounce is believed" in docs/email.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, text
from sqlalchemy.engine import Connection

from ..delivery import reports
from ..delivery.channel import Channel
from ..delivery.policy import suppression
from ..delivery.policy.suppression import NewSuppression
from ..formats.bounces import Bounce, RecipientReport
from ..formats.text import clean
from ..providers.base import Report, ReportStatus

# The actions of RFC 3464 §2.3.3. A later mail follows one that says "delayed", so that is no news.
_STATUS_OF_ACTION: Mapping[str, ReportStatus] = {
    "failed": "undelivered",
    "delivered": "delivered",
    "relayed": "sent",
    "expanded": "sent",
}
# The status classes (RFC 3463) that agree with the action; the last try may end with a 4.
_CLASSES = {"failed": ("4.", "5.")}
_SUCCESS = ("2.",)
# The mailbox does not exist, or takes nothing any more (RFC 3463 §3.2, §3.3; RFC 7505).
_NO_MAILBOX = ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1")


def apply(
    connection: Connection, channel: Channel, found: Iterable[Bounce | None]
) -> list[Row[Any]]:
    """Apply bounces to our emails; return the messages that changed."""
    bounces = [one for one in found if one is not None and one.message_id is not None]
    if not bounces:
        return []
    ids = sorted({one.message_id for one in bounces if one.message_id})
    ours = {row.rfc_message_id: row for row in connection.execute(_OURS, {"ids": ids})}
    changed: list[Row[Any]] = []
    for bounce in bounces:
        row = ours.get(bounce.message_id or "")
        if row is not None:
            changed += _apply(connection, channel, row, bounce.recipients)
    return changed


_OURS = text(
    "SELECT e.rfc_message_id, m.id, m.config_id, m.route_id, m.sender, m.provider_ref"
    " FROM communication_mail AS e JOIN communication_message AS m ON m.id = e.message_id"
    " WHERE e.rfc_message_id IN :ids AND m.direction = 'out' AND m.config_id IS NOT NULL"
    " ORDER BY m.id"
).bindparams(bindparam("ids", expanding=True))
_RECIPIENTS = text("SELECT address FROM communication_recipient WHERE message_id = :id")


def _apply(
    connection: Connection, channel: Channel, row: Row[Any], said: Sequence[RecipientReport]
) -> list[Row[Any]]:
    recipients = connection.scalars(_RECIPIENTS, {"id": row.id}).all()
    # Only the recipient, and the servers on the way to it, know the Message-ID of an email to one.
    # Each recipient of an email to several knows it, and could forge a report about the others.
    to_one = len(recipients) == 1
    believed = _believed(recipients, said, to_one=to_one)
    if not believed:
        return []
    ref = _provider_ref(connection, row)
    found = [
        Report(
            ref, _STATUS_OF_ACTION[one.action], one.diagnostic, one.status, recipient=one.address
        )
        for one in believed
    ]
    gone = [one for one in believed if one.action == "failed" and one.status in _NO_MAILBOX]
    if to_one:
        suppression.store(connection, [_suppressed(channel, row, one) for one in gone])
    return reports.apply(connection, channel, row.config_id, found)


def _believed(
    recipients: Sequence[str], said: Sequence[RecipientReport], *, to_one: bool
) -> list[RecipientReport]:
    """Return the reports about recipients of this email whose status and action agree."""
    ours = {one.lower(): one for one in recipients}
    known = [
        RecipientReport(ours[one.address.lower()], one.action, one.status, one.diagnostic)
        for one in said
        if one.address.lower() in ours
    ]
    return [
        one
        for one in known
        if one.action in _STATUS_OF_ACTION
        and (one.status or "").startswith(_CLASSES.get(one.action, _SUCCESS))
        and (to_one or one.action == "failed")
    ]


def _provider_ref(connection: Connection, row: Row[Any]) -> str:
    if row.provider_ref is not None:
        return str(row.provider_ref)[:255]
    # The message was in doubt. Its bounce proves that it left.
    ref = str(row.rfc_message_id)[:255]
    connection.execute(_SET_PROVIDER_REF, {"id": row.id, "ref": ref})
    return ref


_SET_PROVIDER_REF = text(
    "UPDATE communication_message SET provider_ref = :ref WHERE id = :id AND provider_ref IS NULL"
)


def _suppressed(channel: Channel, row: Row[Any], report: RecipientReport) -> NewSuppression:
    return NewSuppression(
        channel.name,
        report.address.lower(),
        channel.scope(row.sender, row.route_id or row.config_id),
        "bounce",
        clean(report.diagnostic) if report.diagnostic else None,
    )
