"""A bounce makes its email undelivered, and is believed only as far as it is proven."""

from __future__ import annotations

import imaplib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_communication import Email
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.signals import message_undelivered
from tests.support.apps import MakeApp, install, work
from tests.support.mail_servers import Post, certificate, mailboxes, sink
from tests.support.postbox import ANN, BOB, Postbox, bounce, mail, received, sent, thread_of


def test_a_bounce_makes_the_email_undelivered_with_its_reason(app: Flask, postbox: Postbox) -> None:
    heard: list[str] = []

    def hear(_sender: Flask, message_uuid: str, **_told: Any) -> None:
        heard.append(message_uuid)

    with app.app_context(), message_undelivered.connected_to(hear):
        uuid, name = sent(app, postbox)
        postbox.mails.append(bounce(name, ANN))
        Email.sync_inbox()
        message = Email.get(uuid)
        assert (message.status, message.error_code) == ("undelivered", "5.1.1")
        assert message.error == "550 5.1.1 no such user"
        assert heard == [uuid]
        assert thread_of(received()[0].uuid) == thread_of(uuid)


def test_after_a_bounce_that_sender_writes_there_no_more(app: Flask, postbox: Postbox) -> None:
    with app.app_context():
        _, name = sent(app, postbox)
        postbox.mails.append(bounce(name, ANN.upper()))
        Email.sync_inbox()
        assert [(one.destination, one.reason) for one in Email.suppressed().items] == [
            (ANN, "bounce")
        ]
        again = Email(to=ANN, subject="Hi", body="Hi").send()
        both = Email(to=[ANN, BOB], subject="Hi", body="Hi").send()
        work(app)
        assert Email.get(again).status == "rejected"
        assert "suppressed for sender:shop@example.com (bounce)" in (Email.get(again).error or "")
        assert Email.get(both).status == "sent"
        assert {one.address: one.status for one in Email.get(both).recipients} == {
            ANN: "rejected",
            BOB: "sent",
        }
        assert [list(one.recipients) for one in postbox.sent[1:]] == [[BOB]]
        other, _ = sent(app, postbox, sender="news@example.com")
        assert Email.get(other).status == "sent"
        Email.unsuppress(ANN, sender="shop@example.com")
        third, _ = sent(app, postbox)
        assert Email.get(third).status == "sent"


def test_a_bounce_of_mail_without_a_sender_is_learnt_for_its_configuration(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app, postbox = make_app(upgraded_sqlite_url), Postbox()
    number = install(
        app, postbox, type="email", is_default=True, config={"sender": "shop@example.com"}
    )
    with app.app_context():
        _, name = sent(app, postbox)
        postbox.mails.append(bounce(name, ANN))
        Email.sync_inbox()
        assert [one.scope for one in Email.suppressed().items] == [f"config:{number}"]
        again = Email(to=ANN, subject="Hi", body="Hi").send()
        work(app)
        assert Email.get(again).status == "rejected"


def test_a_full_mailbox_is_undelivered_but_not_suppressed(app: Flask, postbox: Postbox) -> None:
    with app.app_context():
        uuid, name = sent(app, postbox)
        postbox.mails.append(bounce(name, ANN, status="5.2.2"))
        Email.sync_inbox()
        assert Email.get(uuid).status == "undelivered"
        assert Email.suppressed().items == []


def test_a_bounce_for_one_of_two_is_that_ones_alone(app: Flask, postbox: Postbox) -> None:
    with app.app_context():
        uuid, name = sent(app, postbox, to=[ANN, BOB])
        postbox.mails.append(bounce(name, BOB))
        Email.sync_inbox()
        assert {one.address: one.status for one in Email.get(uuid).recipients} == {
            ANN: "sent",
            BOB: "undelivered",
        }
        assert Email.get(uuid).status == "sent"
        assert [(one.detail, one.applied) for one in Email.get(uuid).events] == [
            (f"{BOB}: 550 5.1.1 no such user", True)
        ]


@pytest.mark.parametrize("action", ["delayed", "exploded"])
def test_a_report_that_ends_nothing_changes_nothing(
    app: Flask, postbox: Postbox, action: str
) -> None:
    with app.app_context():
        uuid, name = sent(app, postbox)
        postbox.mails.append(bounce(name, ANN, action, "4.4.1"))
        Email.sync_inbox()
        assert Email.get(uuid).status == "sent"


def test_a_forged_bounce_about_strangers_is_not_believed(app: Flask, postbox: Postbox) -> None:
    with app.app_context():
        uuid, name = sent(app, postbox, to=[ANN, BOB])
        postbox.mails += [bounce(name, "victim@example.com"), bounce("<nobody@example.com>", ANN)]
        Email.sync_inbox()
        assert Email.get(uuid).status == "sent"
        assert Email.suppressed().items == []


def test_a_bounce_that_names_somebody_else_says_nothing_of_the_only_recipient(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        uuid, name = sent(app, postbox)
        postbox.mails.append(bounce(name, "victim@example.com"))
        Email.sync_inbox()
        assert Email.get(uuid).status == "sent"
        assert Email.suppressed().items == []


def test_one_of_several_recipients_can_have_no_other_suppressed(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        uuid, name = sent(app, postbox, to=[ANN, BOB])
        postbox.mails.append(bounce(name, BOB).replace(b"MAILER-DAEMON@x.example", ANN.encode()))
        Email.sync_inbox()
        assert {one.address: one.status for one in Email.get(uuid).recipients}[BOB] == "undelivered"
        assert Email.suppressed().items == []
        again, _ = sent(app, postbox, to=BOB)
        assert Email.get(again).status == "sent"


def test_one_of_several_recipients_cannot_say_that_another_has_it(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        uuid, name = sent(app, postbox, to=[ANN, BOB])
        postbox.mails.append(bounce(name, BOB, "delivered", "2.0.0"))
        Email.sync_inbox()
        assert {one.status for one in Email.get(uuid).recipients} == {"sent"}


FORGED: dict[str, Callable[[str], bytes]] = {
    "no report": lambda name: bounce(name, ANN).replace(b"multipart/report", b"multipart/mixed"),
    "another report": lambda name: bounce(name, ANN).replace(
        b"report-type=delivery-status", b"report-type=feedback-report"
    ),
    "a Message-ID that was not returned": lambda name: bounce("<other@example.com>", ANN).replace(
        b"Subject: Returned",
        f"Subject: Returned\r\nIn-Reply-To: {name}\r\nReferences: {name}".encode(),
    ),
    "a header of Exim's": lambda name: mail("Failed", X_Failed_Recipients=ANN, In_Reply_To=name),
    "a failure that is a success": lambda name: bounce(name, ANN, "failed", "2.0.0"),
    "a failure without a status": lambda name: bounce(name, ANN, "failed", "unknown"),
    "a success that is a failure": lambda name: bounce(name, ANN, "delivered", "5.1.1"),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_no_report_of_delivery_is_not_believed(
    app: Flask, postbox: Postbox, name: str
) -> None:
    with app.app_context():
        uuid, ours = sent(app, postbox)
        postbox.mails.append(FORGED[name](ours))
        assert Email.sync_inbox() == (1, 1, 0)
        assert Email.get(uuid).status == "sent"
        assert Email.suppressed().items == []


def test_a_last_try_that_failed_for_a_passing_reason_is_undelivered(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        uuid, name = sent(app, postbox)
        postbox.mails.append(bounce(name, ANN, "failed", "4.4.1"))
        Email.sync_inbox()
        assert (Email.get(uuid).status, Email.get(uuid).error_code) == ("undelivered", "4.4.1")
        assert Email.suppressed().items == []


def test_a_bounce_settles_an_email_that_was_in_doubt(app: Flask, postbox: Postbox) -> None:
    with app.app_context():
        uuid, name = sent(app, postbox)
        with state_of(app).database.write() as connection:
            connection.execute(
                text("UPDATE communication_message SET status = 'unknown', provider_ref = NULL")
            )
        postbox.mails.append(bounce(name, ANN))
        Email.sync_inbox()
        assert Email.get(uuid).status == "undelivered"


def test_a_bounce_is_told_from_one_real_server_to_the_other(
    make_app: MakeApp, upgraded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, post = make_app(upgraded_url), Post()
    shown, _ = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(shown))
    with app.app_context(), mailboxes(shown) as imap, sink(post) as smtp:
        settings = {
            "host": "127.0.0.1",
            "port": smtp,
            "security": "none",
            "sender": "shop@example.com",
        }
        settings |= {"imap_host": "localhost", "imap_port": imap, "imap_security": "starttls"}
        settings |= {"imap_username": "demouser", "imap_password": "demopass"}
        made = {"type": "email", "provider_pkg_name": "smtp", "key": "main", "config": settings}
        store.create(state_of(app), made)
        Email.sync_inbox("main")
        uuid = Email(to=ANN, sender="shop@example.com", subject="Hi", body="Hi").send()
        work(app)
        ((_, recipients, raw),) = post.mails
        assert recipients == [ANN]
        (name,) = [
            line.split(b": ")[1].decode()
            for line in raw.splitlines()
            if line.startswith(b"Message-ID")
        ]
        program = imaplib.IMAP4("localhost", imap)
        program.starttls(ssl.create_default_context(cafile=str(shown)))
        program.login("demouser", "demopass")
        assert program.append("INBOX", "", "", bounce(name, ANN))[0] == "OK"
        assert Email.sync_inbox("main") == (1, 1, 0)
        message = Email.get(uuid)
        assert (message.status, message.error_code) == ("undelivered", "5.1.1")
        assert message.error == "550 5.1.1 no such user"
        (listed,) = Email.suppressed().items
        assert (listed.destination, listed.reason, listed.scope) == (
            ANN,
            "bounce",
            "sender:shop@example.com",
        )
