"""``send-sms`` and ``send-email``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from flask import Flask

from flask_communication import SMS, Email
from flask_communication.storage.models import PRIORITIES
from tests.support.commands import run

TO = "+919999911111"


def test_an_email_from_the_command_line(app: Flask, tmp_path: Path) -> None:
    run(app, "config", "add", "--type", "email", "--provider-pkg-name", "simulator")
    file = tmp_path / "notes.txt"
    file.write_text("notes")
    uuid = run(
        app,
        *("send-email", "ann@example.com", "bob@example.com", "--sender", "shop@example.com"),
        *("--subject", "Hello", "--body", "-", "--attach", str(file)),
        input="from standard input",
    ).strip()
    run(app, "worker", "--burst")
    told = run(app, "show", uuid)
    assert "is sent" in told or "is delivered" in told
    with app.app_context():
        message = Email.get(uuid)
    assert message.body == "from standard input"
    assert message.mail is not None
    assert [one.filename for one in message.mail.attachments] == ["notes.txt"]


def test_what_is_sent_from_the_shell_may_wait_and_have_more_recipients(app: Flask) -> None:
    at = "2099-01-01T09:00:00+01:00"
    for channel in ("email", "sms"):
        run(app, "config", "add", "--type", channel, "--provider-pkg-name", "simulator")
    later = ("--priority", "high", "--at", at)
    sms = run(app, "send-sms", TO, "Hello", *later).strip()
    hidden = ("--cc", "bob@example.com", "--bcc", "eve@example.com", "--bcc", "kim@example.com")
    email = run(
        app, "send-email", "--body", "Hello", "--sender", "s@example.com", *hidden, *later
    ).strip()
    with app.app_context():
        for found in (SMS.get(sms), Email.get(email)):
            assert found.due_at == datetime(2099, 1, 1, 8, tzinfo=UTC)
            assert found.priority == PRIORITIES["high"]
        assert [(one.kind, one.address) for one in Email.get(email).recipients] == [
            ("cc", "bob@example.com"),
            ("bcc", "eve@example.com"),
            ("bcc", "kim@example.com"),
        ]
    assert "has no recipient" in run(app, "send-email", "--body", "Hello", expect=1)
    for bad in ("tomorrow", "2099-01-01T09:00:00"):
        assert "is no time with a zone" in run(app, "send-sms", TO, "Hello", "--at", bad, expect=2)
