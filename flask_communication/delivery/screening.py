"""Who of a claimed batch may be dialled: not the suppressed, and no more than the limits allow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row
from sqlalchemy.engine import Connection

from ..configs.state import State
from ..signals import limit_reached
from ..storage.models import status
from . import outbox
from .announce import announce, tell
from .policy import limits, suppression
from .policy.limits import Hold

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Screened:
    """The messages of a batch that may be sent, and what is to be told of the others after the commit."""

    rows: Sequence[Row[Any]]
    dismissed: Sequence[dict[str, Any]] = field(default=())
    alerts: Sequence[Hold] = field(default=())

    def tell(self, app: Flask) -> None:
        """Send the signals, and one line to the log for each limit that was reached."""
        announce(app, self.dismissed)
        for hold in self.alerts:
            setting, reason = hold.limit.setting, _reason(hold)
            log.warning(
                "%s messages are held back: %s; see: flask communication messages --status held",
                hold.row.channel,
                reason,
            )
            told = {
                "message_uuid": hold.row.uuid,
                "channel": hold.row.channel,
                "status": status.HELD,
            }
            tell(app, limit_reached, limit=setting, reason=reason, **told)


def screen(connection: Connection, state: State, rows: Sequence[Row[Any]]) -> Screened:
    """Reject and hold back claimed messages, in the transaction of their claim; return who is left.

    ``rows`` are rows of :func:`.outbox.claim`. It takes as many statements for one row as for all.
    """
    if not rows:
        return Screened(rows)
    unwanted = suppression.find(connection, [row for row in rows if row.channel != "email"])
    # One in doubt is repeated as it was: to other recipients it would be another message.
    mails = [row for row in rows if row.channel == "email" and row.repeat_until is None]
    unmailed = suppression.find_mailed(connection, mails)
    wanted = [row for row in rows if row.id not in unwanted and row.id not in unmailed]
    holds = limits.check(connection, state.settings, wanted)
    held = {hold.row.id for hold in holds}
    dismissed = [refused(row, unwanted[row.id]) for row in rows if row.id in unwanted]
    dismissed += [_dismissed(row, *unmailed[row.id]) for row in mails if row.id in unmailed]
    dismissed += [_dismissed(hold.row, status.HELD, _reason(hold)) for hold in holds]
    outbox.dismiss(connection, dismissed)
    left = [row for row in wanted if row.id not in held]
    return Screened(left, dismissed, [hold for hold in holds if hold.first])


def _reason(hold: Hold) -> str:
    return f"{hold.limit.setting} {hold.limit.says}"


def refused(row: Row[Any], why: str) -> dict[str, Any]:
    """Say what becomes of a claimed message that must not be sent: rejected, unless it may have arrived."""
    if row.repeat_until is not None:
        return _dismissed(row, status.UNKNOWN, f"an earlier try may have arrived, and now {why}")
    return _dismissed(row, status.REJECTED, why)


def _dismissed(row: Row[Any], moved_to: str, error: str) -> dict[str, Any]:
    told = {"id": row.id, "fence": row.fence, "uuid": row.uuid, "channel": row.channel}
    return {**told, "status": moved_to, "delay": None, "error": error}
