"""``Email``: written, attached to, sent; each recipient has its own outcome."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from jinja2 import DictLoader
from sqlalchemy import text
from werkzeug.datastructures import FileStorage

from flask_communication import Email
from flask_communication.configs.state import state_of
from flask_communication.errors import IdempotencyConflict, InvalidMessage, NotRetryable
from flask_communication.providers.base import (
    Accepted,
    NotSent,
    OutboundEmail,
    OutcomeUnknown,
    Provider,
    ProviderError,
    Refused,
    Report,
)
from tests.support.apps import MakeApp, install, make_due, work

ANN, BOB, EVE = "ann@example.com", "bob@example.com", "eve@example.com"


class Post(Provider):
    """A provider that keeps what it was given, and fails for whom the test says."""

    name = "post"
    types = ("email",)

    def __init__(self) -> None:
        self.sent: list[OutboundEmail] = []
        self.failing: dict[str, ProviderError] = {}
        self.raises: ProviderError | None = None
        self.reports: list[Report] = []

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        self.sent.append(email)
        if self.raises is not None:
            raise self.raises
        failed = {one: self.failing[one] for one in email.recipients if one in self.failing}
        return Accepted(email.message_id, failed=failed)

    def email_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        return [one for one in self.reports if one.ref in refs]


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, post: Post) -> Flask:
    app = make_app(upgraded_url, COMMUNICATION_DEFAULT_SENDER="Shop <shop@example.com>")
    install(app, post, type="email")
    return app


def outcomes(uuid: str) -> dict[str, str]:
    return {one.address: one.status for one in Email.get(uuid).recipients}


def test_an_email_arrives_with_all_it_was_given(app: Flask, post: Post) -> None:
    with app.app_context():
        email = Email(
            to=["Ann Müller <ann@example.com>", BOB],
            cc=EVE,
            bcc="hidden@example.com",
            subject="Grüße",
            body="Hello",
            html="<p>Hello <img src='cid:logo.png'></p>",
            reply_to="help@example.com",
            headers={"X-Order": "17"},
        )
        email.attach(b"PNG", "logo.png", inline=True).attach(b"%PDF", "bill.pdf")
        uuid = email.send(metadata={"order": 17})
        work(app)
        message = Email.get(uuid)
    assert message.status == "sent"
    (sent,) = post.sent
    assert sent.sender == "Shop <shop@example.com>"
    assert sent.to == ["Ann Müller <ann@example.com>", BOB]
    assert sent.recipients == [ANN, BOB, EVE, "hidden@example.com"]
    assert (sent.subject, sent.body, sent.headers) == ("Grüße", "Hello", {"X-Order": "17"})
    assert sent.message_id == f"<{uuid}@example.com>"
    assert [
        (file.filename, file.content_type, file.content_id, file.content) for file in sent.files
    ] == [
        ("logo.png", "image/png", "logo.png", b"PNG"),
        ("bill.pdf", "application/pdf", None, b"%PDF"),
    ]
    assert [(one.address, one.kind) for one in message.recipients][-1] == (
        "hidden@example.com",
        "bcc",
    )


def test_the_seed_writes_it_so(app: Flask) -> None:
    with app.app_context():
        email = Email()
        email.to, email.subject, email.body = ANN, "Hello", "World"
        email.attach()
        uuid = email.send()
        work(app)
        assert Email.get(uuid).status == "sent"
        with pytest.raises(InvalidMessage, match="to: has no recipient"):
            Email().send()


@pytest.mark.usefixtures("app")
def test_what_can_be_attached(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"on disk")
    upload = FileStorage(
        io.BytesIO(b"up"), filename=r"C:\temp\cv.pdf", content_type="application/pdf"
    )
    email = (
        Email(to=ANN).attach(path).attach(str(path)).attach(upload).attach(io.BytesIO(b"memory"))
    )
    with path.open("rb") as opened:
        email.attach(opened)
    assert [(file.filename, file.content) for file in email.files] == [
        ("notes.txt", b"on disk"),
        ("notes.txt", b"on disk"),
        ("cv.pdf", b"up"),
        ("attachment", b"memory"),
        ("notes.txt", b"on disk"),
    ]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((b"x" * (10 * 1024 * 1024 + 1), "big.bin"), "larger than"),
        (("/no/such/file",), "cannot be read"),
        ((io.StringIO("text"), "a.txt"), "mode 'rb'"),
        ((17,), "must be a path, bytes"),
        ((b"x", "a\r\nBcc: eve@example.com"), "filename"),
        ((b"x", "a\u202egnp.exe"), "filename"),
        ((b"x", "a.txt", "text/plain\r\nX: y"), "content_type"),
        ((b"x", "a", "multipart/mixed; boundary=x"), "content_type"),
        ((b"x", "a.csv", "text/csv; charset"), "content_type"),
        ((b"x", "a.csv", f"text/csv; charset={'x' * 70}; b={'y' * 70}"), "content_type"),
        (("/tmp/\0x",), "cannot be read: embedded null"),
        ((b"x", "a.png", "image/png", "a b"), "inline"),
    ],
)
def test_what_cannot_be_attached_says_why(args: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        Email(to=ANN).attach(*args)


def test_a_file_that_is_closed_cannot_be_attached(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x")
    with (tmp_path / "a.txt").open("rb") as opened:
        pass
    with pytest.raises(InvalidMessage, match="cannot be read: read of closed file"):
        Email(to=ANN).attach(opened)


def test_a_mail_and_a_type_with_parameters_can_be_attached(app: Flask, post: Post) -> None:
    calendar = "text/calendar; method=REQUEST; charset=utf-8"
    upload = FileStorage(io.BytesIO(b"Subject: x"), filename="b.eml", content_type="message/rfc822")
    with app.app_context():
        email = Email(to=ANN, body="Hi").attach(b"BEGIN:VCALENDAR", "a.ics", calendar)
        email.attach(b"Subject: x", "a.eml").attach(upload).send()
        work(app)
    assert [one.content_type for one in post.sent[0].files] == [
        calendar,
        "application/octet-stream",
        "application/octet-stream",
    ]


def test_what_exceeds_the_limits_is_not_attached(app: Flask) -> None:
    large, many = Email(to=ANN), Email(to=ANN)
    large.attach(b"x" * (10 * 1024 * 1024), "x")
    with pytest.raises(InvalidMessage, match="at most 18874368 go"):
        large.attach(b"y" * (9 * 1024 * 1024), "y")
    for number in range(50):
        many.attach(b"%d" % number, "x")
    for _ in range(10):
        with pytest.raises(InvalidMessage, match="at most 50 files"):
            many.attach(b"x", "x")
    assert (len(large.files), len(many.files)) == (1, 50)
    with app.app_context():
        many.send()
        for files in (many.files * 2, [*large.files, *large.files], ["/etc/passwd"], "x"):
            many.files = files  # type: ignore[assignment]
            with pytest.raises(InvalidMessage, match="files"):
                many.send()


@pytest.mark.parametrize("name", ["text", "attachments", "from_email", "subjekt"])
def test_a_field_that_no_email_has_cannot_be_set(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        setattr(Email(), name, "Hello")


def test_an_email_of_nothing_is_refused(app: Flask) -> None:
    with app.app_context():
        empty: list[dict[str, Any]] = [{}, {"subject": " ", "body": "\n"}, {"html": ""}]
        for fields in empty:
            with pytest.raises(InvalidMessage, match="body: is empty"):
                Email(to=ANN, **fields).send()
        assert Email(to=ANN, subject="Hi").send()
        assert Email(to=ANN).attach(b"x", "x").send()


LINES = [
    "\r\nBcc: x@example.com",
    "\nx",
    "\r",
    "\x00",
    "\x0b",
    "\x85",
    "\u2028",
    "\u2029",
    "\x1b[2J",
]


@pytest.mark.parametrize("bad", LINES)
@pytest.mark.parametrize(
    "field", ["subject", "to", "cc", "sender", "reply_to", "in_reply_to", "headers"]
)
def test_nothing_breaks_out_of_a_header(app: Flask, field: str, bad: str) -> None:
    fields: dict[str, Any] = {"to": ANN, "body": "Hello"}
    fields[field] = {"X-Order": f"17{bad}"} if field == "headers" else f"Ann{bad} <ann@example.com>"
    with app.app_context(), pytest.raises(InvalidMessage):
        Email(**fields).send()


@pytest.mark.parametrize(
    "to",
    [
        "ann",
        "ann@",
        "@example.com",
        "ann@example.com, bob@example.com",
        '"<ann@example.com>"@evil.com',
        "ann@example.com>",
        "Ann <ann@example.com> <bob@example.com>",
        "ann@exa mple.com",
        "ann@-example.com",
        "ann@example..com",
        "a" * 65 + "@example.com",
        "=?utf-8?q?=0ABcc:?= <ann",
        17,
        [ANN, None],
        [f"user{number}@example.com" for number in range(10_000)],
    ],
)
def test_what_is_no_address_is_refused(app: Flask, to: Any) -> None:
    with app.app_context(), pytest.raises(InvalidMessage, match="to"):
        Email(to=to, body="Hello").send()


@pytest.mark.parametrize(
    "name", ["Bcc", "X-A: 1\r\nBcc", "Content-Type", "Subject", "X A", "", "X" * 65, "Ü"]
)
def test_headers_of_ours_and_broken_names_are_refused(app: Flask, name: str) -> None:
    with app.app_context(), pytest.raises(InvalidMessage, match=r"headers\."):
        Email(to=ANN, headers={name: "1"}).send()


def test_a_text_is_made_of_the_html(app: Flask, post: Post) -> None:
    with app.app_context():
        Email(
            to=ANN,
            html="<style>p{}</style><p>Hello <a href='https://x.example'>you</a></p><p>Bye</p>",
        ).send()
        work(app)
    assert post.sent[0].body == "Hello you (https://x.example)\nBye"


def test_templates_of_the_host_are_the_words(app: Flask, post: Post) -> None:
    app.jinja_loader = DictLoader(
        {
            "welcome.subject": "Hello\n{{ name }}\n",
            "welcome.txt": "Dear {{ name }}",
            "welcome.html": "<b>{{ name }}</b>",
        }
    )
    with app.app_context():
        Email.from_template("welcome", {"name": "<Ann>"}, to=ANN).send()
        work(app)
        with pytest.raises(InvalidMessage, match=r"neither nothing\.txt nor"):
            Email.from_template("nothing")
    (sent,) = post.sent
    assert (sent.subject, sent.body, sent.html) == (
        "Hello <Ann>",
        "Dear <Ann>",
        "<b>&lt;Ann&gt;</b>",
    )


def test_one_click_unsubscribing(app: Flask, post: Post) -> None:
    with app.app_context():
        Email(to=ANN, body="News", unsubscribe="https://shop.example/u/1").send()
        work(app)
        with pytest.raises(InvalidMessage, match="unsubscribe"):
            Email(to=ANN, unsubscribe="http://shop.example").send()
    assert post.sent[0].headers == {
        "List-Unsubscribe": "<https://shop.example/u/1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


def test_each_recipient_has_its_own_outcome(app: Flask, post: Post) -> None:
    post.failing = {
        BOB: NotSent("mailbox busy", code="4.2.0", only_this=True),
        EVE: Refused("no such user", code="5.1.1", only_this=True),
    }
    with app.app_context():
        uuid = Email(to=[ANN, BOB, EVE], body="Hello").send()
        work(app)
        message = Email.get(uuid)
        assert message.status == "queued"
        assert outcomes(uuid) == {ANN: "sent", BOB: "queued", EVE: "rejected"}
        assert "bob@example.com" in (message.error or "")
        post.failing.clear()
        make_due(app)
        work(app)
        assert Email.get(uuid).status == "sent"
        assert outcomes(uuid) == {ANN: "sent", BOB: "sent", EVE: "rejected"}
    assert [one.recipients for one in post.sent] == [[ANN, BOB, EVE], [BOB]]
    # Another set of recipients is another message for a provider that ignores repeats.
    assert post.sent[0].key != post.sent[1].key
    assert post.sent[0].message_id == post.sent[1].message_id


def test_refused_by_all_is_rejected(app: Flask, post: Post) -> None:
    post.failing = {one: Refused("no such user", only_this=True) for one in (ANN, BOB)}
    with app.app_context():
        uuid = Email(to=[ANN, BOB], body="Hello").send()
        work(app)
        assert Email.get(uuid).status == "rejected"
        assert outcomes(uuid) == {ANN: "rejected", BOB: "rejected"}
        post.failing.clear()
        Email.retry_send(uuid)
        work(app)
        assert outcomes(uuid) == {ANN: "sent", BOB: "sent"}


def test_who_has_it_does_not_get_it_again_by_a_retry(app: Flask, post: Post) -> None:
    post.failing = {BOB: NotSent("busy", only_this=True)}
    with app.app_context():
        uuid = Email(to=[ANN, BOB], body="Hello").send()
        work(app)
        post.failing = {BOB: Refused("gone", only_this=True)}
        make_due(app)
        work(app)
        assert Email.get(uuid).status == "sent"
        assert outcomes(uuid) == {ANN: "sent", BOB: "rejected"}
        post.failing = {}
        Email.retry_send(uuid)
        work(app)
        with pytest.raises(NotRetryable):
            Email.retry_send(uuid)
    assert [one.recipients for one in post.sent] == [[ANN, BOB], [BOB], [BOB]]


def test_a_retry_goes_to_those_who_were_refused_and_to_nobody_else(app: Flask, post: Post) -> None:
    with app.app_context():
        post.failing = {BOB: Refused("mailbox full")}
        uuid = Email(to=[ANN, BOB], cc=EVE, body="Hello").send()
        work(app)
        Email.retry_send(uuid)
        work(app)
        # Refused again: the others have it all the same.
        assert outcomes(uuid) == {ANN: "sent", BOB: "rejected", EVE: "sent"}
        assert Email.get(uuid).status == "sent"
        post.failing = {}
        Email.retry_send(uuid)
        work(app)
        assert outcomes(uuid) == {ANN: "sent", BOB: "sent", EVE: "sent"}
        with pytest.raises(NotRetryable, match="would get it twice"):
            Email.retry_send(uuid)
    assert [one.recipients for one in post.sent] == [[ANN, BOB, EVE], [BOB], [BOB]]
    assert len({one.key for one in post.sent}) == 3
    assert [one.provider_ref for one in post.sent] == [None, None, None]


def test_a_retry_goes_to_those_whose_mail_came_back(app: Flask, post: Post) -> None:
    with app.app_context():
        uuid = Email(to=[ANN, BOB], body="Hello").send()
        work(app)
        post.reports = [Report(post.sent[0].message_id, "undelivered", recipient=BOB)]
        Email.sync_delivery_report()
        assert outcomes(uuid) == {ANN: "sent", BOB: "undelivered"}
        Email.retry_send(uuid)
        assert outcomes(uuid) == {ANN: "sent", BOB: "queued"}
        work(app)
        assert outcomes(uuid) == {ANN: "sent", BOB: "sent"}
    assert [one.recipients for one in post.sent] == [[ANN, BOB], [BOB]]


def test_a_retry_does_not_go_to_those_who_may_have_it(app: Flask, post: Post) -> None:
    with app.app_context():
        post.failing = {BOB: Refused("no such user"), EVE: OutcomeUnknown("silence")}
        uuid = Email(to=[ANN, BOB, EVE], body="Hello").send()
        work(app)
        with pytest.raises(NotRetryable, match="it may have arrived"):
            Email.retry_send(uuid)
        Email.resolve(uuid, "sent")
        post.failing = {}
        Email.retry_send(uuid)
        work(app)
        assert outcomes(uuid) == {ANN: "sent", BOB: "sent", EVE: "unknown"}
    assert [one.recipients for one in post.sent] == [[ANN, BOB, EVE], [BOB]]


def test_a_doubt_is_shared_by_those_it_is_about(app: Flask, post: Post) -> None:
    post.raises = OutcomeUnknown("lost after the final dot")
    with app.app_context():
        uuid = Email(to=[ANN, BOB], body="Hello").send()
        work(app)
        assert outcomes(uuid) == {ANN: "unknown", BOB: "unknown"}
        Email.resolve(uuid, "sent")
        assert outcomes(uuid) == {ANN: "sent", BOB: "sent"}


def test_a_report_of_one_recipient_is_that_recipients(app: Flask, post: Post) -> None:
    with app.app_context():
        uuid = Email(to=[ANN, BOB], body="Hello").send()
        work(app)
        ref = post.sent[0].message_id
        post.reports = [Report(ref, "undelivered", "no such user", "5.1.1", recipient=ANN)]
        Email.sync_delivery_report()
        assert Email.get(uuid).status == "sent"
        assert outcomes(uuid) == {ANN: "undelivered", BOB: "sent"}
        post.reports.append(Report(ref, "delivered", recipient="BOB@example.com"))
        Email.sync_delivery_report()
        assert Email.get(uuid).status == "delivered"
        assert outcomes(uuid) == {ANN: "undelivered", BOB: "delivered"}


def test_files_are_stored_once(app: Flask) -> None:
    with app.app_context():
        for number in range(5):
            Email(to=f"user{number}@example.com", body="Hello").attach(
                b"the same", f"{number}.txt"
            ).send()
    with state_of(app).database.read() as connection:
        assert connection.execute(
            text("SELECT count(*), sum(size) FROM communication_file")
        ).one() == (1, 8)
        assert (
            connection.execute(text("SELECT count(*) FROM communication_attachment")).scalar() == 5
        )


def test_the_same_key_is_one_email(app: Flask) -> None:
    with app.app_context():
        first = Email(to=ANN, body="Hello").attach(b"1", "a.txt").send(idempotency_key="k")
        assert Email(to=ANN, body="Hello").attach(b"1", "a.txt").send(idempotency_key="k") == first
        with pytest.raises(IdempotencyConflict):
            Email(to=ANN, body="Hello").attach(b"2", "a.txt").send(idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            Email(to=ANN, bcc=BOB, body="Hello").attach(b"1", "a.txt").send(idempotency_key="k")


def test_many_are_one_transaction(app: Flask) -> None:
    with app.app_context():
        with pytest.raises(InvalidMessage, match=r"\[1\]\.to"):
            Email.send_bulk([{"to": ANN, "body": "a"}, {"to": "nobody", "body": "b"}])
        with pytest.raises(InvalidMessage, match=r"\[0\]"):
            Email.send_bulk([{"to": ANN, "colour": "red"}])
        assert not Email.messages().items
        uuids = Email.send_bulk(
            [{"to": ANN, "body": "a", "priority": "high"}, Email(to=BOB, body="b")]
        )
        work(app)
        assert {Email.get(uuid).status for uuid in uuids} == {"sent"}


def test_a_rolled_back_order_sends_no_email(app: Flask) -> None:
    with app.app_context():
        session = app.extensions["sqlalchemy"].session
        Email(to=ANN, body="Hello").attach(b"x", "a.txt").send(session=session)
        session.rollback()
        uuid = Email(to=BOB, body="Hello").attach(b"y", "a.txt").send(session=session)
        session.commit()
        assert [one.uuid for one in Email.messages().items] == [uuid]


def test_it_waits_for_its_time_and_can_be_cancelled(app: Flask, post: Post) -> None:
    with app.app_context():
        uuid = Email(to=ANN, body="Hello").send(send_at=datetime.now(UTC) + timedelta(hours=1))
        work(app)
        assert not post.sent
        Email.cancel(uuid)
        assert outcomes(uuid) == {ANN: "cancelled"}


def test_an_answer_belongs_to_its_conversation(app: Flask, post: Post) -> None:
    with app.app_context():
        first = Email(to=ANN, subject="Question", body="?").send()
        second = Email(to=ANN, subject="Re: Question", body="!", in_reply_to=first).send()
        third = Email(to=ANN, subject="Re: Question", body="!", in_reply_to=second).send()
        Email(to=ANN, body="x", in_reply_to="<elsewhere@example.com>").send()
        work(app)
        root = Email.get(first)
        answered = Email.get(third).mail
        assert answered is not None
        assert answered.thread_id == root.id
    by_subject = {one.message_id: one for one in post.sent}
    answer = by_subject[f"<{third}@example.com>"]
    assert answer.in_reply_to == f"<{second}@example.com>"
    assert answer.references == [f"<{first}@example.com>", f"<{second}@example.com>"]


def test_a_page_finds_an_email_by_any_of_its_recipients(app: Flask) -> None:
    with app.app_context():
        uuid = Email(to=ANN, bcc=BOB, body="Hello").send()
        Email(to=EVE, body="Hello").send()
        assert [one.uuid for one in Email.messages(destination=BOB).items] == [uuid]
        assert [one.uuid for one in Email.messages(destination=ANN).items] == [uuid]


def test_guards_of_a_deployment_look_at_each_recipient(
    make_app: MakeApp, upgraded_url: str, post: Post
) -> None:
    app = make_app(
        upgraded_url,
        COMMUNICATION_ONLY_TO=["@example.com"],
        COMMUNICATION_DEFAULT_SENDER="a@b.example",
    )
    install(app, post, type="email")
    with app.app_context():
        uuid = Email(to=[ANN, "ann@elsewhere.example"], body="Hello").send()
        other = Email(to="ann@elsewhere.example", body="Hello").send()
        work(app)
        assert outcomes(uuid) == {ANN: "sent", "ann@elsewhere.example": "rejected"}
        assert Email.get(other).status == "rejected"
    assert [one.recipients for one in post.sent] == [[ANN]]


def test_without_a_sender_it_says_what_to_set(
    make_app: MakeApp, upgraded_url: str, post: Post
) -> None:
    app = make_app(upgraded_url)
    install(app, post, type="email")
    with app.app_context():
        uuid = Email(to=ANN, body="Hello").send()
        work(app)
        message = Email.get(uuid)
    assert message.status == "rejected"
    assert "COMMUNICATION_DEFAULT_SENDER" in (message.error or "")
