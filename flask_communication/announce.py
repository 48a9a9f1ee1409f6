"""Tell the host, by signals, what became of messages."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from .signals import BY_STATUS

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger("flask_communication")


def announce(app: Flask, moved: Iterable[Mapping[str, Any] | Row[Any]]) -> None:
    """Send the signal of each message's new status, inside an application context.

    ``moved`` are rows with ``uuid``, ``channel`` and ``status``. A receiver that raises is logged: what
    it was told of has happened, and cannot be undone by not listening.
    """
    for row in moved:
        told = row._mapping if isinstance(row, Row) else row
        signal = BY_STATUS.get(told["status"])
        if signal is None or not signal.receivers:
            continue
        try:
            with app.app_context():
                signal.send(
                    app,
                    message_uuid=told["uuid"],
                    channel=told["channel"],
                    status=told["status"],
                )
        except Exception:
            log.exception("a receiver of %s failed for %s", signal.name, told["uuid"])
