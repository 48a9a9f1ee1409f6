"""An incoming mail is stored once, with its files, in its conversation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_communication import Email
from flask_communication.configs.state import state_of
from flask_communication.errors import (
    FileNotFound,
    InvalidQuery,
    MessageNotFound,
)
from flask_communication.signals import message_received
from tests.support.apps import MakeApp, install, work
from tests.support.postbox import ANN, BOB, Postbox, mail, received, sent, thread_of


def test_new_mail_is_kept_with_all_that_belongs_to_it(app: Flask, postbox: Postbox) -> None:
    heard: list[str] = []

    def hear(_sender: Flask, message_uuid: str, **_told: Any) -> None:
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

    def authorize(action: str, _resource: Any = None) -> bool:
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


def test_a_mail_that_the_server_did_not_give_whole_says_so(app: Flask, postbox: Postbox) -> None:
    postbox.mails += [mail("large"), b""]
    postbox.flaws = {0: "it is larger than 25 MB", 1: "the server could not give it"}
    with app.app_context():
        Email.sync_inbox()
        large, empty = received()
        assert large.mail.problem == "it is larger than 25 MB"
        assert empty.mail.problem == "the server could not give it; it is empty"


# --- Conversations


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
