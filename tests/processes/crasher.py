"""A child process that uses messages and crashes at a crash point.

A file stores what the provider got, and outlives the process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_communication import SMS, Communication, Email
from flask_communication.configs.state import state_of
from flask_communication.errors import Refused
from flask_communication.providers.base import (
    Accepted,
    InboundEmail,
    Inbox,
    OutboundSMS,
    Provider,
    Report,
)
from flask_communication.storage import crashpoints
from tests.support.apps import TO, install, make_due, work

# What is in the mailbox.
MAILS = ("first", "second")


class Filed(Provider):
    """A provider that writes each message to a file; with a window, each key once."""

    name = "filed"
    types = ("sms", "email")
    features = frozenset({"inbox"})

    def __init__(self, folder: Path, window: float) -> None:
        self.file = folder / "rang"
        self.refuses = folder / "refuses"
        self.idempotency_window = window

    @property
    def rang(self) -> list[str]:
        return self.file.read_text().split() if self.file.exists() else []

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        if self.refuses.exists():
            raise Refused("no")
        if not (self.idempotency_window and sms.key in self.rang):
            with self.file.open("a") as file:
                file.write(f"{sms.key}\n")
        return Accepted(f"ref-{sms.key}")

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        return [Report(ref, "delivered") for ref in refs if ref.removeprefix("ref-") in self.rang]

    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        new = MAILS[cursor.get("read", 0) :]
        mails = [InboundEmail(str(one), f"Subject: {one}\r\n\r\nHello".encode()) for one in new]
        return Inbox(mails, {"read": len(MAILS)})


def make_app(url: str, folder: Path, window: float, redis: str | None = None) -> Flask:
    """Make an application on an upgraded database, with such a provider."""
    app = Flask("crasher")
    app.config.update(
        SECRET_KEY="of a test",
        SQLALCHEMY_DATABASE_URI=url,
        COMMUNICATION_EMBEDDED_WORKER=False,
        COMMUNICATION_REDIS_URL=redis,
        COMMUNICATION_CONCURRENCY=4,
    )
    Communication(app, SQLAlchemy(app))
    state_of(app).registry.register(Filed(folder, window))
    return app


def configure(app: Flask) -> None:
    """Store the configuration, once for all processes."""
    install(app, state_of(app).registry.find("filed"))


def send(app: Flask, count: int = 1) -> list[str]:
    """Accept messages, under the same idempotency keys each time."""
    with app.app_context():
        return [
            SMS.send_msg(TO, f"message {n}", idempotency_key=f"order-{n}") for n in range(count)
        ]


def send_and_work(app: Flask, count: int) -> None:
    send(app, count)
    for _ in range(2):
        work(app)
        make_due(app)
    work(app)


def only_work(app: Flask, _count: int) -> None:
    work(app)


def retry(app: Flask, _count: int) -> None:
    """A person sends again what the provider refused."""
    with app.app_context():
        SMS.retry_send(SMS.messages().items[0].uuid)


def read_inbox(app: Flask, _count: int) -> None:
    with app.app_context():
        Email.sync_inbox()


PLOTS = {"send": send_and_work, "work": only_work, "retry": retry, "inbox": read_inbox}


def crash(
    spec: str, plot: str, url: str, folder: str, window: float, redis: str | None, count: int
) -> None:
    """Do what the plot says until the crash point is reached; exit with 0 if it never is."""
    logging.disable(logging.CRITICAL)
    app = make_app(url, Path(folder), window, redis)
    crashpoints.arm(spec)
    PLOTS[plot](app, count)
    os._exit(0)
