"""Tell the host, by signals, what became of messages."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from blinker import NamedSignal

from ..signals import BY_STATUS

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)


def announce(app: Flask, moved: Iterable[Any]) -> None:
    """Send the signal of each message's new status.

    ``moved`` have ``uuid``, ``channel`` and ``status``.
    """
    for row in moved:
        told = row if isinstance(row, Mapping) else _fields(row)
        signal = BY_STATUS.get(told["status"])
        if signal is not None:
            tell(
                app,
                signal,
                message_uuid=told["uuid"],
                channel=told["channel"],
                status=told["status"],
            )


def _fields(row: Any) -> Mapping[str, Any]:
    return {"uuid": row.uuid, "channel": row.channel, "status": row.status}


def tell(app: Flask, signal: NamedSignal, **told: Any) -> None:
    """Send a signal inside an application context.

    A receiver that raises is logged, and the others are told all the same: what happened cannot be
    undone by not listening.
    """
    if not signal.receivers:
        return
    with app.app_context():
        for receiver in signal.receivers_for(app):
            try:
                receiver(app, **told)
            except Exception:
                log.exception("a receiver of %s failed for %s", signal.name, told["message_uuid"])
