"""The inbox: every mail once, in its conversation; what comes back is told of.

Nothing stops the others.
"""

from __future__ import annotations

import hashlib
import imaplib
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_communication import Email
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.email import inbox, incoming
from flask_communication.errors import (
    ConfigNotFound,
    FileNotFound,
    InvalidQuery,
    MessageNotFound,
    NotSent,
    ProviderError,
    Refused,
)
from flask_communication.formats.mail import ParsedMail
from flask_communication.providers.base import (
    Accepted,
    InboundEmail,
    Inbox,
    OutboundEmail,
    Provider,
)
from flask_communication.signals import message_received, message_undelivered
from tests.support.hostile_mail import corpus
from tests.support.mail_servers import Post, certificate, mailboxes, sink
from tests.support.rigs import install, work

MakeApp = Callable[..., Flask]
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


@pytest.fixture
def postbox() -> Postbox:
    return Postbox()


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, postbox: Postbox) -> Flask:
    app = make_app(upgraded_url, COMMUNICATION_DEFAULT_SENDER="Shop <shop@example.com>")
    install(app, postbox, type="email", key="main", is_default=True)
    return app


def received(limit: int = 200) -> list[Any]:
    return list(reversed(Email.messages(status="received", limit=limit).items))


def test_new_mail_is_kept_with_all_that_belongs_to_it(app: Flask, postbox: Postbox) -> None:
    heard: list[str] = []

    def hear(sender: Flask, message_uuid: str, **told: Any) -> None:
        heard.append(message_uuid)

    postbox.mails.append(mail("Where is it?", Message_ID="<1@example.com>"))
    with app.app_context(), message_received.connected_to(hear):
        assert Email.sync_inbox() == (1, 1, 0)
        (found,) = received()
        message = Email.get(found.uuid)
    assert heard == [found.uuid]
    assert (message.direction, message.status, message.channel) == ("in", "received", "email")
    assert (message.sender, message.destination) == (ANN, "shop@example.com")
    assert message.body.strip() == "Where is it?, it says."
    assert message.sent_at == datetime(2026, 11, 23, 9, tzinfo=UTC)
    assert message.mail is not None
    assert (message.mail.subject, message.mail.rfc_message_id) == (
        "Where is it?",
        "<1@example.com>",
    )
    assert message.mail.mailboxes["from"] == ["Ann <ann@example.com>"]
    assert message.mail.problem is None
    assert message.mail.raw_sha256 is not None


def test_a_second_sync_brings_only_what_is_new(app: Flask, postbox: Postbox) -> None:
    with app.app_context():
        postbox.mails += [mail("one"), mail("two")]
        assert Email.sync_inbox("main") == (2, 2, 0)
        assert Email.sync_inbox("main") == (0, 0, 0)
        postbox.mails.append(mail("three"))
        assert Email.sync_inbox("main") == (1, 1, 0)
        assert [one.body.split(",")[0] for one in received()] == ["one", "two", "three"]


def test_a_mailbox_that_numbers_its_mails_anew_brings_none_twice(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        postbox.mails += [mail("one"), mail("two")]
        Email.sync_inbox()
        with state_of(app).database.write() as connection:
            connection.execute(text("UPDATE communication_mailbox SET cursor = '{}'"))
        postbox.mails.append(mail("three"))
        assert Email.sync_inbox() == (3, 1, 0)
        assert len(received()) == 3


def test_the_same_mail_twice_in_one_batch_is_one(app: Flask, postbox: Postbox) -> None:
    postbox.mails += [mail("one"), mail("one")]
    with app.app_context():
        assert Email.sync_inbox() == (2, 1, 0)


def test_files_are_kept_once_and_given_back_whole(app: Flask, postbox: Postbox) -> None:
    part = (
        b"--B\r\nContent-Disposition: attachment; filename=a.bin\r\n\r\n\x00\x01\xff\r\n--B--\r\n"
    )
    head = b"Content-Type: multipart/mixed; boundary=B\r\n\r\n"
    postbox.mails += [
        b"From: a@x.example\r\n" + head + part,
        b"From: b@x.example\r\n" + head + part,
    ]
    with app.app_context():
        Email.sync_inbox()
        for one in received():
            file = Email.file(one.uuid, 0)
            assert (file.filename, file.content) == ("a.bin", b"\x00\x01\xff")
            with pytest.raises(FileNotFound, match="has no file 1"):
                Email.file(one.uuid, 1)
        with state_of(app).database.read() as connection:
            count = connection.execute(text("SELECT count(*) FROM communication_file")).scalar()
    assert count == 3  # the file, and both mails as they came


def test_a_mail_is_given_back_as_it_came(app: Flask, postbox: Postbox) -> None:
    postbox.mails += [mail("One"), b"\x00\xff no mail at all", b""]
    with app.app_context():
        Email.sync_inbox()
        one, two, empty = received()
        assert [Email.raw(one.uuid), Email.raw(two.uuid)] == postbox.mails[:2]
        ours = Email(to=ANN, subject="Hi", body="Hi").send()
        with pytest.raises(FileNotFound, match="nothing of it is kept"):
            Email.raw(empty.uuid)
        with pytest.raises(FileNotFound, match="did not come in"):
            Email.raw(ours)
        with pytest.raises(MessageNotFound):
            Email.raw("nobody")
    result = app.test_cli_runner().invoke(args=["communication", "raw", two.uuid])
    assert result.stdout_bytes == postbox.mails[1]
    result = app.test_cli_runner().invoke(args=["communication", "raw", ours])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)


def test_a_mail_as_it_came_is_served_to_be_saved_and_nothing_else(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    asked: list[str] = []

    def authorize(action: str, resource: Any = None) -> bool:
        asked.append(action)
        return "closed" not in asked

    app = make_app(upgraded_sqlite_url, authorize=authorize)
    install(app, Postbox(b"<script>alert(1)</script>"), type="email", is_default=True)
    with app.app_context():
        Email.sync_inbox()
        (found,) = received()
    client = app.test_client()
    answer = client.get(f"/communication/messages/{found.uuid}/raw")
    assert (answer.status_code, answer.data) == (200, b"<script>alert(1)</script>")
    assert answer.content_type == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f"attachment; filename={found.uuid}.eml"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert asked == ["message.read"]
    assert client.get("/communication/messages/nobody/raw").status_code == 404
    asked.append("closed")
    assert client.get(f"/communication/messages/{found.uuid}/raw").status_code == 403


# --- Conversations
# -----------------------------------------------------------------------------------


def thread_of(uuid: str) -> int:
    message = Email.get(uuid)
    assert message.mail is not None
    return message.mail.thread_id or message.id


def test_a_reply_joins_the_conversation_of_what_it_answers(app: Flask, postbox: Postbox) -> None:
    with app.app_context():
        ours = Email(to=ANN, subject="Your order", body="Sent").send()
        work(app)
        name = postbox.sent[0].message_id
        postbox.mails += [
            mail("Re: Your order", Message_ID="<2@x.example>", In_Reply_To=name),
            mail(
                "Re: Re: Your order", Message_ID="<3@x.example>", References=f"{name} <2@x.example>"
            ),
            mail("Something else", Message_ID="<4@x.example>"),
        ]
        Email.sync_inbox()
        first, second, other = received()
        assert thread_of(first.uuid) == thread_of(second.uuid) == thread_of(ours)
        assert thread_of(other.uuid) == other.id
        answer = Email(to=ANN, subject="Re", body="Soon", in_reply_to=second.uuid).send()
        assert thread_of(answer) == thread_of(ours)
        work(app)
    assert postbox.sent[1].in_reply_to == "<3@x.example>"
    assert list(postbox.sent[1].references) == [name, "<2@x.example>", "<3@x.example>"]


@pytest.mark.parametrize("name", ["", f"<{'A' * 960}@x.example>", "none"])
def test_a_mail_whose_name_cannot_be_written_is_answered_in_its_conversation(
    app: Flask, postbox: Postbox, name: str
) -> None:
    with app.app_context():
        _, ours = sent(app, postbox)
        postbox.mails.append(mail("Re: Hi", Message_ID=name, In_Reply_To=ours))
        Email.sync_inbox()
        (came,) = received()
        answer, _ = sent(app, postbox, in_reply_to=came.uuid)
        assert Email.get(answer).status == "sent"
        assert thread_of(answer) == thread_of(came.uuid)
    assert (postbox.sent[1].in_reply_to, list(postbox.sent[1].references)) == (None, [])


def test_a_conversation_is_listed_by_any_of_its_emails(app: Flask, postbox: Postbox) -> None:
    with app.app_context():
        ours, name = sent(app, postbox)
        postbox.mails += [
            mail("Re: Hi", Message_ID="<2@x.example>", In_Reply_To=name),
            mail("Other", Message_ID="<3@x.example>"),
        ]
        Email.sync_inbox()
        reply, other = received()
        answer = Email(to=BOB, subject="Re", body="Soon", in_reply_to=reply.uuid).send()
        whole = [answer, reply.uuid, ours]
        for one in whole:
            assert [found.uuid for found in Email.messages(thread=one).items] == whole
        assert [found.uuid for found in Email.messages(thread=other.uuid).items] == [other.uuid]
        first = Email.messages(thread=ours, limit=2)
        assert [found.uuid for found in first.items] == whole[:2]
        assert [found.uuid for found in Email.messages(thread=ours, after=first.next).items] == [
            ours
        ]
        assert [found.uuid for found in Email.messages(thread=ours, status="received").items] == [
            reply.uuid
        ]
        assert [found.uuid for found in Email.messages(thread=ours, destination=BOB).items] == [
            answer
        ]
        assert [found.uuid for found in Email.messages(thread=ours, key="main").items] == whole
        with pytest.raises(InvalidQuery, match="thread"):
            Email.messages(thread="nobody")


def test_mails_of_one_batch_find_each_other(app: Flask, postbox: Postbox) -> None:
    postbox.mails += [
        mail("One", Message_ID="<1@x.example>"),
        mail("Two", Message_ID="<2@x.example>", In_Reply_To="<1@x.example>"),
        mail("Me", Message_ID="<3@x.example>", References="<3@x.example>"),
    ]
    with app.app_context():
        Email.sync_inbox()
        one, two, me = received()
        assert thread_of(two.uuid) == one.id
        assert thread_of(me.uuid) == me.id


# --- What comes back
# ---------------------------------------------------------------------------------


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


def sent(app: Flask, postbox: Postbox, **fields: Any) -> tuple[str, str]:
    uuid = Email(**{"to": ANN, "subject": "Hi", "body": "Hi", **fields}).send()
    work(app)
    return uuid, postbox.sent[-1].message_id


def test_a_bounce_makes_the_email_undelivered_with_its_reason(app: Flask, postbox: Postbox) -> None:
    heard: list[str] = []

    def hear(sender: Flask, message_uuid: str, **told: Any) -> None:
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
        assert program.append("INBOX", "", None, bounce(name, ANN))[0] == "OK"  # type: ignore[arg-type]
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


# --- What a person is told
# ---------------------------------------------------------------------------


def run(app: Flask, *words: str) -> str:
    result = app.test_cli_runner().invoke(args=["communication", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_story_of_an_email_tells_its_recipients_files_and_what_came_back(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        uuid = Email(to=[ANN, BOB], subject="Your bill", body="Hi").attach(b"x", "bill.pdf").send()
        work(app)
        postbox.mails.append(bounce(postbox.sent[0].message_id, BOB))
        Email.sync_inbox()
    told = run(app, "show", uuid).splitlines()
    assert "  subject: Your bill" in told
    assert f"  to {ANN}: sent" in told
    assert f"  to {BOB}: undelivered, 550 5.1.1 no such user (5.1.1)" in told
    assert "  file: bill.pdf (application/pdf)" in told
    (report,) = [one for one in told if "report: undelivered" in one]
    assert report.endswith(f"{BOB}: 550 5.1.1 no such user")
    assert "  next: nothing: its provider sends no delivery reports" in told[-1]


def test_the_story_of_a_mail_that_came_in_tells_what_could_not_be_read(
    app: Flask, postbox: Postbox
) -> None:
    postbox.mails.append(mail("Hello", From="root"))
    with app.app_context():
        Email.sync_inbox()
        (found,) = received()
    told = run(app, "show", found.uuid)
    assert "  to shop@example.com from root\n" in told
    assert "  problem: its sender has no address that can be answered\n" in told
    assert "  received\n" in told
    assert "  next: nothing, it came in\n" in told


def test_the_story_of_an_email_in_doubt_names_what_decides_about_emails(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        uuid, _ = sent(app, postbox)
        with state_of(app).database.write() as connection:
            connection.execute(
                text("UPDATE communication_message SET status = 'unknown', due_at = NULL")
            )
    told = run(app, "show", uuid)
    assert f"flask communication resolve {uuid} sent|resend|drop" in told
    assert "SMS" not in told
    assert run(app, "resolve", uuid, "drop")
    assert "is failed" in run(app, "show", uuid)


def test_the_list_of_messages_shows_subjects_and_who_wrote(app: Flask, postbox: Postbox) -> None:
    postbox.mails.append(mail("Where is it?"))
    with app.app_context():
        Email(to=BOB, subject="x" * 80, body="Hi").send()
        assert "from" not in run(app, "messages").splitlines()[0]
        Email.sync_inbox()
    titles, came, ours = run(app, "messages").splitlines()
    assert titles.split() == [
        "uuid",
        "channel",
        "status",
        "to",
        "from",
        "subject",
        "created",
        "error",
    ]
    assert "shop@example.com  ann@example.com  Where is it?  " in came
    assert "x" * 49 + "…" in ours


# --- Hostile mail
# ------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_two_thousand_mixed_mails_with_the_hostile_ones_come_once_each(
    app: Flask, postbox: Postbox
) -> None:
    hostile = [raw for _, raw in corpus() if len(raw) < 2_000_000]
    good = [mail(f"good {n}", Message_ID=f"<{n}@x.example>") for n in range(2000 - len(hostile))]
    postbox.mails = [raw for pair in zip(good, hostile, strict=False) for raw in pair] + good[
        len(hostile) :
    ]
    different = len({raw or str(place) for place, raw in enumerate(postbox.mails)})
    halfway = [True, *[False] * 8, True]

    def die() -> None:
        if halfway and halfway.pop(0) and postbox.visits > 1:
            raise KeyboardInterrupt

    postbox.meanwhile = die
    with app.app_context():
        with pytest.raises(KeyboardInterrupt):
            Email.sync_inbox()
        before = count_of(app)
        assert 0 < before < different
        result = Email.sync_inbox()
        assert result.failed == 0
        assert count_of(app) == different
        assert before + result.new == different
        assert Email.sync_inbox() == (0, 0, 0)
        kept = told(app)
        assert {
            name: count for name, count in Counter(name for name, _ in kept).items() if count > 1
        } == {}
        expected = {
            (hashlib.sha256(raw).hexdigest() if raw else None): raw for raw in postbox.mails
        }
        assert {name for name, _ in kept} == set(expected)
        problems = {name: problem for name, problem in kept if problem}
        assert problems == {
            name: found
            for name, raw in expected.items()
            if (found := incoming.parse(1, InboundEmail("1", raw)).problem)
        }
        assert len(problems) > 100


def told(app: Flask) -> list[tuple[str | None, str | None]]:
    """Return of each mail that came in the name of its raw bytes, which are there, and its problem."""
    query = (
        "SELECT e.raw_sha256, e.problem, f.content FROM communication_mail AS e"
        " JOIN communication_message AS m ON m.id = e.message_id"
        " LEFT JOIN communication_file AS f ON f.sha256 = e.raw_sha256 WHERE m.direction = 'in'"
    )
    with state_of(app).database.read() as connection:
        rows = connection.execute(text(query)).all()
    assert all(
        row.raw_sha256 in (None, hashlib.sha256(row.content or b"").hexdigest()) for row in rows
    )
    return [(row.raw_sha256, row.problem) for row in rows]


def count_of(app: Flask) -> int:
    with state_of(app).database.read() as connection:
        query = "SELECT count(*) FROM communication_message WHERE direction = 'in'"
        return int(connection.execute(text(query)).scalar() or 0)


def test_a_mail_that_the_server_did_not_give_whole_says_so(app: Flask, postbox: Postbox) -> None:
    postbox.mails += [mail("large"), b""]
    postbox.flaws = {0: "it is larger than 25 MB", 1: "the server could not give it"}
    with app.app_context():
        Email.sync_inbox()
        large, empty = received()
        assert large.mail.problem == "it is larger than 25 MB"
        assert empty.mail.problem == "the server could not give it; it is empty"


# --- Whose turn it is
# --------------------------------------------------------------------------------


def mailbox(app: Flask) -> Any:
    with state_of(app).database.read() as connection:
        return connection.execute(text("SELECT * FROM communication_mailbox")).one()


def test_a_worker_reads_what_is_due_and_then_waits(app: Flask, postbox: Postbox) -> None:
    postbox.mails.append(mail("one"))
    with app.app_context():
        work(app)
        assert len(received()) == 1
        assert (mailbox(app).reading, mailbox(app).error) == (False, None)
        assert mailbox(app).synced_at is not None
        assert not inbox.is_due(state_of(app))
        work(app)
    assert postbox.visits == 1


def test_no_mailbox_is_read_by_itself_where_the_setting_says_so(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app, postbox = (
        make_app(upgraded_sqlite_url, COMMUNICATION_INBOX_EVERY=None),
        Postbox(mail("one")),
    )
    install(app, postbox, type="email")
    work(app)
    assert postbox.visits == 0
    with app.app_context():
        assert Email.sync_inbox() == (1, 1, 0)


def test_trouble_is_raised_for_a_named_mailbox_and_kept_for_people(
    app: Flask, postbox: Postbox
) -> None:
    postbox.trouble = Refused("wrong password")
    with app.app_context():
        with pytest.raises(ProviderError, match="wrong password"):
            Email.sync_inbox("main")
        assert mailbox(app).error == "wrong password"
        assert Email.sync_inbox() == (0, 0, 1)
        postbox.trouble = None
        assert Email.sync_inbox() == (0, 0, 0)
        assert mailbox(app).error is None


def test_trouble_in_a_worker_is_logged_and_stops_nothing(
    app: Flask, postbox: Postbox, caplog: pytest.LogCaptureFixture
) -> None:
    postbox.trouble = RuntimeError("a bug of the provider")
    with app.app_context():
        uuid = Email(to=ANN, subject="Hi", body="Hi").send()
        work(app)
        assert Email.get(uuid).status == "sent"
    assert "cannot read the inbox of configuration" in caplog.text
    assert "RuntimeError" in mailbox(app).error


def test_what_is_to_be_sent_does_not_wait_for_a_slow_mailbox(app: Flask, postbox: Postbox) -> None:
    arrived, seen = threading.Event(), []
    postbox.meanwhile = lambda: seen.append(arrived.wait(20))
    with app.app_context():
        Email(to=ANN, subject="Hi", body="Hi").send()

        def send(email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
            arrived.set()
            return Accepted(email.message_id)

        postbox.send_email = send  # type: ignore[method-assign]
        work(app)
    assert seen == [True]


def test_who_was_overtaken_stores_nothing_more(app: Flask, postbox: Postbox) -> None:
    postbox.mails += [mail(f"mail {n}") for n in range(6)]
    postbox.page = 2
    with app.app_context():
        done: list[Any] = []

        def overtake() -> None:
            if postbox.visits == 2:
                done.append(Email.sync_inbox("main"))

        postbox.meanwhile = overtake
        first = Email.sync_inbox("main")
        assert done == [(4, 4, 0)]
        assert first == (2, 2, 1)
        assert len(received()) == 6


def test_a_provider_that_promises_more_and_brings_nothing_is_left(
    app: Flask, postbox: Postbox
) -> None:
    def nothing(cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]) -> Inbox:
        postbox.visits += 1
        return Inbox([], {"read": 1}, more=True)

    postbox.fetch_inbox = nothing  # type: ignore[method-assign]
    with app.app_context():
        assert Email.sync_inbox() == (0, 0, 0)
    assert postbox.visits == 2


def test_a_configuration_without_an_inbox_says_so(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app = make_app(upgraded_sqlite_url)
    provider = Postbox()
    provider.features = frozenset()
    install(app, provider, type="email", key="plain")
    with app.app_context():
        with pytest.raises(InvalidQuery, match="has no inbox"):
            Email.sync_inbox("plain")
        with pytest.raises(ConfigNotFound):
            Email.sync_inbox("nobody")
        assert Email.sync_inbox() == (0, 0, 0)
        work(app)
        assert not inbox.is_due(state_of(app))
    assert provider.visits == 0


def test_a_batch_that_cannot_be_stored_is_stored_one_by_one(
    app: Flask, postbox: Postbox, caplog: pytest.LogCaptureFixture
) -> None:
    # A letter that no column takes stands for what our reader may overlook.
    postbox.mails += [mail("one"), mail("two"), mail("three")]
    with app.app_context():
        routes: Sequence[Any] = inbox._routes(state_of(app), "main")
        reader = inbox.claim(state_of(app), routes[0])
        assert reader is not None
        found = postbox.fetch_inbox({}, 10, {})
        mails = [incoming.parse(1, one) for one in found.mails]
        broken = incoming.IncomingMail(
            mails[1].fetched,
            ParsedMail(message_id=object()),  # type: ignore[arg-type]
            mails[1].fingerprint,
        )
        assert reader._store([mails[0], broken, mails[2]], {"read": 3}) is not None
        problems = [one.mail.problem for one in received()]
    assert problems == [None, "could not be read: TypeError", None]
    assert "cannot be stored as it was read" in caplog.text


def test_errors_of_the_mailbox_never_show_what_is_secret(app: Flask, postbox: Postbox) -> None:
    postbox.trouble = NotSent("mail.example.com:993: refused\r\nsee\x00below")
    with app.app_context():
        Email.sync_inbox()
    assert mailbox(app).error == "mail.example.com:993: refused  see below"
