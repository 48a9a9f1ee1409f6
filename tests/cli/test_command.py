"""``flask communication …``."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from flask import Flask

from flask_communication import SMS, Email
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.errors import OutcomeUnknown, Refused
from flask_communication.storage.models import PRIORITIES
from tests.support.rigs import Scripted, install, work

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
    assert "1 messages attempted" in run(app, "worker", "--burst")
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


def stored(app: Flask, config_id: int = 1) -> dict[str, Any]:
    return next(one for one in store.listing(state_of(app)) if one["id"] == config_id)


def test_a_configuration_is_changed_shown_and_deleted(app: Flask) -> None:
    add = ["config", "add", "--type", "sms", "--provider-pkg-name", "simulator", "--key"]
    run(app, *add, "main", "--set", "story=delivered", "--set", "latency_ms=5")
    run(app, *add, "spare")
    told = run(
        app,
        *(
            "config",
            "update",
            "1",
            "--disabled",
            "--key",
            "first",
            "--weight",
            "70",
            "--rate",
            "2.5",
        ),
        *("--fallback", "spare", "--set", "story=unknown", "--clear", "latency_ms"),
    )
    assert "configuration 1 is changed" in told
    known = stored(app)
    assert (known["enabled"], known["key"], known["weight"]) == (False, "first", 70)
    assert (known["rate_per_second"], known["fallback"]) == (2.5, ["spare"])
    assert known["config"] == {"story": "unknown"}
    told = run(app, "config", "show", "1")
    for words in ("sms first (1)", "disabled, version 2", "fallback spare", "weight 70, rate 2.5"):
        assert words in told
    assert 'story = "unknown"' in told
    assert "state: disabled" in told
    run(app, "config", "update", "1", "--enabled", "--no-rate", "--no-fallback", "--default")
    known = stored(app)
    assert (known["enabled"], known["rate_per_second"], known["fallback"]) == (True, None, [])
    assert known["is_default"]
    assert not stored(app, 2)["is_default"]
    assert run(app, "config", "delete", "1", input="n\n", expect=1)
    assert "sms first (1) is deleted" in run(app, "config", "delete", "1", "--yes")
    for words in (["show", "1"], ["update", "1"], ["delete", "1", "--yes"], ["update", "otp"]):
        assert run(app, "config", *words, expect=1).startswith("Error: ")


def test_a_changed_secret_is_asked_for(app: Flask) -> None:
    words = ["config", "add", "--type", "sms", "--provider-pkg-name", "acme", "--secret", "api_key"]
    run(app, *words, input="CANARY\n")
    told = run(app, "config", "update", "1", "--secret", "api_key", input="OTHER_CANARY\n")
    assert "CANARY" not in told + run(app, "config", "show", "1")
    assert 'api_key = "********"' in run(app, "config", "show", "1")


def test_the_list_shows_the_way_and_how_each_is(app: Flask) -> None:
    install(
        app,
        Scripted(lambda sms: refuse()),
        key="main",
        fallback=["ghost"],
        weight=70,
        rate_per_second=5,
    )
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        work(app)
    told = run(app, "config", "list")
    for words in ("ghost (unknown)", "70", "5", "stopped until it is changed: wrong password"):
        assert words in told
    assert "state: stopped until" in run(app, "config", "show", "1")


def refuse() -> Any:
    raise Refused("wrong password", http_status=401)


def test_a_fallback_or_a_provider_that_does_not_exist_is_warned_of(app: Flask) -> None:
    told = run(
        app,
        "config",
        "add",
        "--type",
        "sms",
        "--provider-pkg-name",
        "acme",
        "--fallback",
        "ghost",
        "--key",
        "a",
    )
    assert "configuration 1 stored" in told
    assert "Warning: no configuration of this type has the key 'ghost' yet" in told
    assert "Warning: nothing can be sent by it yet: no provider is called 'acme'" in told
    told = run(
        app, "config", "add", "--type", "sms", "--provider-pkg-name", "simulator", "--fallback", "a"
    )
    assert "Warning" not in told
    assert "Warning" in run(app, "config", "update", "2", "--fallback", "ghost")


def test_keys_are_rotated(make_app: MakeApp, upgraded_url: str) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    words = ["config", "add", "--type", "sms", "--provider-pkg-name", "acme", "--secret", "api_key"]
    app = make_app(upgraded_url, COMMUNICATION_ENCRYPTION_KEYS=[old])
    run(app, *words, input="CANARY\n")
    run(app, *words, input="CANARY\n")
    run(app, "config", "delete", "1", "--yes")
    run(app, "config", "add", "--type", "sms", "--provider-pkg-name", "simulator")
    both = make_app(upgraded_url, COMMUNICATION_ENCRYPTION_KEYS=[new, old])
    assert "2 configurations" in run(both, "rotate-keys")
    assert stored(make_app(upgraded_url, COMMUNICATION_ENCRYPTION_KEYS=[new]), 2)["config"] == {
        "api_key": "********"
    }
    told = run(app, "rotate-keys", expect=1)
    assert "0 configurations" in told
    assert "no key in COMMUNICATION_ENCRYPTION_KEYS opens the secrets of config:1" in told


def test_tokens_are_made_listed_and_revoked(app: Flask) -> None:
    token = run(
        app, "token", "create", "billing", "--scope", "message.send", "--days", "30"
    ).strip()
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
    from flask_communication.configs.settings import Settings

    Settings.from_config({"COMMUNICATION_ENCRYPTION_KEYS": [run(app, "generate-key").strip()]})


@pytest.mark.parametrize(
    "words",
    [
        ["show", "no-such-uuid"],
        ["messages", "--status", "asleep"],
        ["messages", "--after", "x"],
        ["send-sms", "nobody", "Hello"],
        ["config", "add", "--type", "pigeon", "--provider-pkg-name", "x"],
        ["config", "add", "--type", "sms", "--provider-pkg-name", "x", "--rate", "1e-300"],
        ["config", "add", "--type", "sms", "--provider-pkg-name", "x", "--rate", "nan"],
        ["config", "add", "--type", "sms", "--provider-pkg-name", "x", "--rate", "inf"],
        ["suppression", "list", "--after", "999999999999999999"],
        ["messages", "--key", "zzz"],
        ["erase", "", "--yes"],
        ["erase", " \t", "--yes"],
        ["config", "list", "--type", "fax"],
        ["token", "create", "me", "--scope", "bogus"],
        ["token", "create", "me", "--scope", "*", "--days", "nan"],
        ["token", "create", "me", "--scope", "*", "--days", "1e300"],
        ["token", "create", "me", "--scope", "*", "--days", "-1"],
        ["token", "create", "me", "--scope", "*", "--days", "0"],
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


@pytest.fixture(params=["sms", "email"])
def in_doubt(app: Flask, request: pytest.FixtureRequest) -> str:
    """Give the uuid of an SMS, or an email, of which nobody knows whether it has arrived."""

    def lose(message: Any) -> Any:
        raise OutcomeUnknown("the connection broke")

    class Lossy(Scripted):
        name = "lossy"
        send_email = send_sms = lambda self, message, config: lose(message)

    install(app, Lossy(), type=request.param)
    with app.app_context():
        if request.param == "sms":
            uuid = SMS.send_msg(TO, "Hello")
        else:
            uuid = Email(to="ann@example.com", body="Hello", sender="shop@example.com").send()
        work(app)
    return uuid


def test_a_person_resolves_retries_and_cancels_on_the_command_line(
    app: Flask, in_doubt: str
) -> None:
    assert f"flask communication resolve {in_doubt} sent|resend|drop" in run(app, "show", in_doubt)
    assert "must be one of sent, resend, drop" in run(app, "resolve", in_doubt, "maybe", expect=1)
    assert "cannot be retried" in run(app, "retry", in_doubt, expect=1)
    assert "is resolved: drop" in run(app, "resolve", in_doubt, "drop")
    told = run(app, "show", in_doubt)
    assert "is failed" in told
    assert "it is over; to repeat it: flask communication retry " in told
    assert "cannot be resolved" in run(app, "resolve", in_doubt, "sent", expect=1)
    assert "is queued" in run(app, "retry", in_doubt, "--force")
    assert "is cancelled" in run(app, "cancel", in_doubt)
    assert "cannot be cancelled" in run(app, "cancel", in_doubt, expect=1)


@pytest.mark.parametrize(
    "words", [["resolve", "no-such-uuid", "sent"], ["retry", "none"], ["cancel", "none"]]
)
def test_a_decision_about_no_message_is_one_line(app: Flask, words: list[str]) -> None:
    assert run(app, *words, expect=1).startswith("Error: there is no message")


def test_release_says_what_was_released_and_what_was_not(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app = make_app(upgraded_url, COMMUNICATION_ALLOWED_COUNTRIES=["+1"])
    install(app, Scripted())
    with app.app_context():
        held, other = (SMS.send_msg(TO, "Hello") for _ in range(2))
        work(app)
    told = run(app, "release", held, "no-such-uuid", other, expect=1)
    assert "2 released" in told
    assert "Error: there is no message no-such-uuid" in told
    assert told.count("Error") == 1


def test_a_long_error_is_cut_in_the_table_and_whole_in_the_story(app: Flask) -> None:
    def refuse(sms: object) -> Any:
        raise Refused("it was refused because " * 20)

    install(app, Scripted(refuse))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
    line = run(app, "messages").splitlines()[1]
    assert line.endswith("…")
    assert len(line) < 170
    assert "it was refused because " * 10 in run(app, "show", uuid)


def test_a_person_who_watches_sees_the_progress_replaced_by_the_result() -> None:
    controller, terminal = pty.openpty()
    code = (
        "import sys; from flask_communication.cli.command import progress;"
        "progress('1 of 2'); progress('2 of 2'); progress(''); print('done')"
    )
    subprocess.run([sys.executable, "-c", code], stderr=terminal, stdout=terminal, check=True)
    os.close(terminal)
    assert os.read(controller, 1000).decode() == "\r\x1b[K1 of 2\r\x1b[K2 of 2\r\x1b[Kdone\r\n"
    os.close(controller)


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


@pytest.mark.parametrize(
    "words", [["messages"], ["send-sms", TO, "Hello"], ["config", "list"], ["prune"]]
)
def test_a_database_that_is_away_is_one_line(make_app: MakeApp, words: list[str]) -> None:
    told = run(make_app("postgresql+psycopg://nobody@127.0.0.1:1/none"), *words, expect=1)
    assert told.startswith("Error: the database cannot be used: ")
    assert len(told.splitlines()) == 1
