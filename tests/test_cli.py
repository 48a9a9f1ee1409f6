"""``flask communication …``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from rigs import Scripted, install, work

from flask_communication import SMS, Email
from flask_communication.models import PRIORITIES
from flask_communication.state import state_of

TO = "+919999911111"
MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str) -> Flask:
    return make_app(upgraded_url)


def run(app: Flask, *words: str, expect: int = 0, **kwargs: Any) -> str:
    result = app.test_cli_runner().invoke(args=["communication", *words], **kwargs)
    assert result.exit_code == expect, result.output
    return result.output


def test_from_nothing_to_a_delivered_sms(make_app: MakeApp, database_url: str) -> None:
    app = make_app(database_url)
    assert "communication upgrade" in run(app, "send-sms", TO, "Hello", expect=1)
    assert "up to date" in run(app, "upgrade")
    assert "config add" in run(app, "send-sms", TO, "Hello", expect=1)
    assert "configuration 1 stored" in run(
        app, "config", "add", "--type", "sms", "--provider-pkg-name", "simulator"
    )
    uuid = run(app, "send-sms", TO, "Hello").strip()
    assert "is queued" in run(app, "show", uuid)
    assert "1 messages dialled" in run(app, "worker", "--burst")
    assert "still open" in run(app, "sync")
    told = run(app, "show", uuid)
    assert "accepted" in told
    assert f"to {TO}" in told
    assert "next:" in told
    assert uuid in run(app, "messages", "--to", TO)


def test_a_story_tells_attempts_events_and_what_comes_next(app: Flask) -> None:
    provider = Scripted()
    install(app, provider, key="otp")
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        provider.reports[f"ref-{uuid}"] = "delivered"
        SMS.sync_delivery_report()
    told = run(app, "show", uuid)
    for words in ("is delivered", "(otp)", "accepted after", f"as ref-{uuid}", "report: delivered"):
        assert words in told
    assert "next: nothing, it is over" in told
    assert "Hello" not in told


def test_secrets_are_asked_for_and_listed_masked(app: Flask) -> None:
    words = ["config", "add", "--type", "sms", "--provider-pkg-name", "acme", "--secret", "api_key"]
    run(app, *words, "--set", "sender=SHOP", "--key", "acme", input="CANARY\n")
    listed = run(app, "config", "list")
    assert "acme" in listed
    assert "********" in listed
    assert "CANARY" not in listed
    assert "NAME=VALUE" in run(app, *words, "--set", "nonsense", expect=2)


def test_tokens_are_made_listed_and_revoked(app: Flask) -> None:
    token = run(app, "token", "create", "billing", "--scope", "message.send", "--days", "30").strip()
    assert token.startswith("fc_")
    public = token.split("_")[1]
    listed = run(app, "token", "list")
    assert public in listed
    assert token not in listed
    client = app.test_client()
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get("/communication/messages", headers=headers).status_code == 403
    assert "revoked" in run(app, "token", "revoke", public)
    assert client.get("/communication/messages", headers=headers).status_code == 401
    assert "no valid token" in run(app, "token", "revoke", public, expect=1)


def test_a_key_from_generate_key_can_be_used(app: Flask) -> None:
    from flask_communication.settings import Settings

    Settings.from_config({"COMMUNICATION_ENCRYPTION_KEYS": [run(app, "generate-key").strip()]})


@pytest.mark.parametrize(
    "words",
    [
        ["show", "no-such-uuid"],
        ["messages", "--status", "asleep"],
        ["messages", "--after", "x"],
        ["send-sms", "nobody", "Hello"],
        ["config", "add", "--type", "pigeon", "--provider-pkg-name", "x"],
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(app: Flask, words: list[str]) -> None:
    told = run(app, *words, expect=1)
    assert told.startswith("Error: ")
    assert "Traceback" not in told


def test_rq_cron_knows_what_to_ring_for(redis_url: str) -> None:
    from redis import Redis
    from rq.cron import CronScheduler

    import flask_communication.jobs  # noqa: F401

    scheduler = CronScheduler(connection=Redis.from_url(redis_url))
    import sys

    sys.modules.pop("flask_communication.jobs")
    scheduler.load_config_from_file("flask_communication.jobs")
    (job,) = scheduler.get_jobs()
    assert (job.queue_name, job.interval) == ("communication", 15)


def test_the_command_is_there_for_each_application(app: Flask) -> None:
    told = run(app, "--help")
    for command in ("worker", "upgrade", "sync", "send-sms", "messages", "show", "config", "token"):
        assert command in told
    assert state_of(app).settings.queue == "communication"


def test_explain_says_by_which_configuration_and_why(app: Flask) -> None:
    run(app, "config", "add", "--type", "sms", "--provider-pkg-name", "simulator", "--key", "spare")
    run(
        app,
        *("config", "add", "--type", "sms", "--provider-pkg-name", "simulator", "--key", "main"),
        *("--fallback", "spare", "--rate", "5", "--weight", "80"),
    )
    told = run(app, "explain", "sms", TO, "--key", "main")
    assert "(main), simulator: well, begins 80 of 100, at most 5 a second" in told
    assert told.index("(main), simulator") < told.index("(spare), simulator")
    assert "nobody" in run(app, "explain", "sms", TO, "--key", "nobody", expect=1)
    assert "-> configuration" in run(app, "explain", "sms", TO)


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
    assert [one.filename for one in message.mail.attachments] == ["notes.txt"]


def test_what_is_sent_from_the_shell_may_wait_and_have_more_recipients(app: Flask) -> None:
    at = "2099-01-01T09:00:00+01:00"
    for channel in ("email", "sms"):
        run(app, "config", "add", "--type", channel, "--provider-pkg-name", "simulator")
    later = ("--priority", "high", "--at", at)
    sms = run(app, "send-sms", TO, "Hello", *later).strip()
    hidden = ("--cc", "bob@example.com", "--bcc", "eve@example.com", "--bcc", "kim@example.com")
    email = run(app, "send-email", "--body", "Hello", "--sender", "s@example.com", *hidden, *later).strip()
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
