"""A mailbox for tests: a provider whose mails are a list, and mails to put into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from flask import Flask

from flask_communication import Email
from flask_communication.providers.base import (
    Accepted,
    InboundEmail,
    Inbox,
    OutboundEmail,
    Provider,
)
from tests.support.apps import work

ANN, BOB = "ann@example.com", "bob@example.com"


class Postbox(Provider):
    """A provider whose mailbox is a list; a cursor counts how far it was read."""

    name = "postbox"
    types = ("email",)
    features = frozenset({"inbox"})

    def __init__(self, *mails: bytes) -> None:
        self.mails = list(mails)
        self.page = 100
        self.trouble: Exception | None = None
        self.visits = 0
        self.sent: list[OutboundEmail] = []
        self.flaws: dict[int, str] = {}
        self.meanwhile: Callable[[], None] = lambda: None

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        self.sent.append(email)
        return Accepted(email.message_id)

    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        self.visits += 1
        self.meanwhile()
        if self.trouble is not None:
            raise self.trouble
        first = int(cursor.get("read", 0))
        last = min(first + min(limit, self.page), len(self.mails))
        when = datetime(2026, 11, 23, 9, tzinfo=UTC)
        mails = [
            InboundEmail(f"INBOX/1/{n}", self.mails[n], "INBOX", when, self.flaws.get(n))
            for n in range(first, last)
        ]
        return Inbox(mails, {"read": last}, last < len(self.mails))


def mail(subject: str, **headers: str) -> bytes:
    lines = {
        "From": "Ann <ann@example.com>",
        "To": "shop@example.com",
        "Subject": subject,
        **headers,
    }
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"{head}\r\n{subject}, it says.\r\n".encode()


def bounce(name: str, address: str, action: str = "failed", status: str = "5.1.1") -> bytes:
    return (
        "From: MAILER-DAEMON@x.example\r\nSubject: Returned\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=B\r\n\r\n"
        "--B\r\n\r\nIt did not arrive.\r\n--B\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Reporting-MTA: dns; x.example\r\n\r\n"
        f"Final-Recipient: rfc822; {address}\r\nAction: {action}\r\nStatus: {status}\r\n"
        f"Diagnostic-Code: smtp; 550 {status} no such user\r\n\r\n"
        f"--B\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: {name}\r\n\r\nHello\r\n--B--\r\n"
    ).encode()


def received(limit: int = 200) -> list[Any]:
    return list(reversed(Email.messages(status="received", limit=limit).items))


def sent(app: Flask, postbox: Postbox, **fields: Any) -> tuple[str, str]:
    uuid = Email(**{"to": ANN, "subject": "Hi", "body": "Hi", **fields}).send()
    work(app)
    return uuid, postbox.sent[-1].message_id


def thread_of(uuid: str) -> int:
    message = Email.get(uuid)
    assert message.mail is not None
    return message.mail.thread_id or message.id
