"""``email/…``: emails are sent as JSON and as a form; statuses, retries and the inbox."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from flask_communication import Email
from flask_communication.configs import tokens
from flask_communication.configs.state import state_of
from flask_communication.errors import NotSent, Refused
from flask_communication.providers.base import (
    Accepted,
    InboundEmail,
    Inbox,
    OutboundEmail,
    Provider,
    ProviderError,
)
from flask_communication.storage.models import PRIORITIES
from tests.support.apps import install, work
from tests.support.rest_email import ANN, BOB, MAIL, PNG, encoded, sent

MakeApp = Callable[..., Flask]


class Post(Provider):
    """A provider that keeps what it was given."""

    name = "post"
    types = ("email",)
    features = frozenset({"inbox"})

    def __init__(self) -> None:
        self.sent: list[OutboundEmail] = []
        self.failing: dict[str, ProviderError] = {}
        self.trouble: Exception | None = None

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        self.sent.append(email)
        return Accepted(email.message_id, failed=self.failing)

    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        if self.trouble is not None:
            raise self.trouble
        mails: Sequence[InboundEmail] = (
            () if cursor else [InboundEmail("1", b"From: a@x.example\r\n\r\nHi")]
        )
        return Inbox(mails, {"read": 1})


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, post: Post) -> Flask:
    app = make_app(upgraded_url)
    install(app, post, type="email", key="main", is_default=True)
    return app


def test_an_email_is_sent_as_json_with_its_files(
    app: Flask, client: FlaskClient, post: Post
) -> None:
    files = [
        {
            "filename": "logo.png",
            "content": encoded(PNG),
            "content_type": "image/png",
            "inline": True,
        },
        {"filename": "bill.pdf", "content": encoded(b"%PDF")},
    ]
    uuid = sent(
        client,
        to=["Ann <ann@example.com>", BOB],
        cc="eve@example.com",
        attachments=files,
        key="main",
    )
    work(app)
    (email,) = post.sent
    assert email.message_id == f"<{uuid}@example.com>"
    assert email.recipients == [ANN, BOB, "eve@example.com"]
    assert [
        (one.filename, one.content_type, one.content_id, one.content) for one in email.files
    ] == [
        ("logo.png", "image/png", "logo.png", PNG),
        ("bill.pdf", "application/pdf", None, b"%PDF"),
    ]


def test_an_email_is_sent_as_a_form_with_its_files(
    app: Flask, client: FlaskClient, post: Post
) -> None:
    form = {
        **MAIL,
        "to": [ANN, BOB],
        "files": [(io.BytesIO(b"%PDF"), "bill.pdf"), (io.BytesIO(b""), "")],
        "inline": (io.BytesIO(PNG), "logo.png"),
    }
    answer = client.post("/communication/email/send", data=form, content_type="multipart/form-data")
    assert answer.status_code == 200, answer.text
    work(app)
    (email,) = post.sent
    assert email.recipients == [ANN, BOB]
    assert {(one.filename, one.content_id, one.content) for one in email.files} == {
        ("bill.pdf", None, b"%PDF"),
        ("logo.png", "logo.png", PNG),
    }


@pytest.mark.parametrize(
    "html", ["<p>price <![b]></p>", "<![1]>x", "<p>Hi <![ if gte mso 9]>", "<a " * 30_000]
)
def test_html_that_is_none_is_sent_as_it_is(
    app: Flask, client: FlaskClient, post: Post, html: str
) -> None:
    sent(client, html=html, body="")
    with app.app_context():
        work(app)
    assert post.sent[0].html == html


LATER = {
    "config": {"key": "value"},
    "send_at": "2099-01-01T09:00:00+01:00",
    "expires_at": "2099-01-02T00:00:00Z",
    "priority": "high",
    "metadata": {"order": 17},
    "headers": {"X-Order": "17"},
}


@pytest.mark.parametrize("is_form", [False, True], ids=["json", "form"])
def test_an_email_has_its_time_and_all_the_rest(
    app: Flask, client: FlaskClient, is_form: bool
) -> None:
    mail = {"bcc": BOB, "body": "Hello", "sender": "shop@example.com", **LATER}
    written = {
        name: json.dumps(one) if isinstance(one, dict) else one for name, one in mail.items()
    }
    given: dict[str, Any] = (
        {"data": written, "content_type": "multipart/form-data"} if is_form else {"json": mail}
    )
    answer = client.post("/communication/email/send", **given)
    assert answer.status_code == 200, answer.text
    with app.app_context():
        found = Email.get(answer.json["data"]["msg_uuid"])  # type: ignore[index]
    assert found.due_at == datetime(2099, 1, 1, 8, tzinfo=UTC)
    assert found.expires_at == datetime(2099, 1, 2, tzinfo=UTC)
    assert (found.priority, found.meta) == (PRIORITIES["high"], {"order": 17})
    assert found.mail is not None
    assert (found.mail.headers, found.mail.mailboxes["to"]) == ({"X-Order": "17"}, [])
    # What the seed's callers add to a retry, too.
    answer = client.post(
        "/communication/email/retry", json={"msg_uuid": found.uuid, "config": {"a": "b"}}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("send_at", "2099-01-01T09:00:00"),
        ("send_at", "soon"),
        ("expires_at", "2000-01-01T00:00:00Z"),
        ("priority", "urgent"),
        ("metadata", "[1]"),
        ("metadata", "{"),
        ("metadata", '{"a": "\\u0000"}'),
        ("headers", '{"X-A": 1}'),
        ("headers", "{" * 5000),
    ],
)
def test_an_option_that_is_wrong_is_named_in_a_form(
    client: FlaskClient, name: str, bad: str
) -> None:
    form = {**MAIL, name: bad}
    answer = client.post("/communication/email/send", data=form, content_type="multipart/form-data")
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == [name]  # type: ignore[index]


def test_a_files_name_may_have_the_spaces_of_a_mac(app: Flask, client: FlaskClient) -> None:
    name = "Screenshot 1.00.00\u202fPM.png"
    form = {**MAIL, "file": (io.BytesIO(PNG), name)}
    answer = client.post("/communication/email/send", data=form, content_type="multipart/form-data")
    with app.app_context():
        uuid = answer.json["data"]["msg_uuid"]  # type: ignore[index]
        assert Email.file(uuid, 0).filename == name


def test_an_idempotency_key_is_one_email(client: FlaskClient) -> None:
    answers = [
        client.post("/communication/email/send", json=MAIL, headers={"Idempotency-Key": "k"}).json
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    other = client.post(
        "/communication/email/send",
        json={**MAIL, "body": "Other"},
        headers={"Idempotency-Key": "k"},
    )
    assert other.status_code == 409


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "no recipient": ({"to": []}, 422, "to"),
    "a recipient that is none": ({"to": "nobody"}, 422, "to"),
    "a recipient that is a number": ({"to": 1}, 422, "to"),
    "10,000 recipients": ({"to": [f"a{n}@example.com" for n in range(10_000)]}, 422, "to"),
    "two lines in a recipient": ({"to": "a@example.com\r\nBcc: b@example.com"}, 422, "to"),
    "two lines in a subject": ({"subject": "Hi\r\nBcc: b@example.com"}, 422, "subject"),
    "two lines in a header": ({"headers": {"X-A": "b\nBcc: c"}}, 422, "headers.X-A"),
    "a header of ours": ({"headers": {"Bcc": BOB}}, 422, "headers.Bcc"),
    "a header of the server": ({"headers": {"ARC-Seal": "x"}}, 422, "headers.ARC-Seal"),
    "a header with a word of 1,000": ({"headers": {"X-A": "x" * 1000}}, 422, "headers.X-A"),
    "a field that is none": ({"colour": "red"}, 422, "colour"),
    "a file that is no base64": (
        {"attachments": [{"filename": "a", "content": "@@"}]},
        422,
        "attachments",
    ),
    "a file's name of two lines": (
        {"attachments": [{"filename": "a\nb", "content": ""}]},
        422,
        "filename",
    ),
    "51 files": ({"attachments": [{"filename": "a", "content": ""}] * 51}, 422, "attachments"),
    "a content id beyond ASCII": (
        {"attachments": [{"filename": "a", "content": "", "content_id": "bild-ü"}]},
        422,
        "inline",
    ),
    "an address to unsubscribe beyond ASCII": (
        {"unsubscribe": "https://x.example/ü"},
        422,
        "unsubscribe",
    ),
    "an answer to nobody": ({"in_reply_to": "not a uuid"}, 422, "in_reply_to"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(client: FlaskClient, name: str) -> None:
    changed, status, field = WRONG[name]
    answer = client.post("/communication/email/send", json={**MAIL, **changed})
    assert answer.status_code == status, answer.text
    assert answer.json is not None
    assert list(answer.json["errors"]) == [field], answer.json


def test_a_configuration_that_is_not_there_is_not_found(client: FlaskClient) -> None:
    assert (
        client.post("/communication/email/send", json={**MAIL, "key": "other"}).status_code == 404
    )


@pytest.mark.parametrize("size", [11_000_000, 40_000_000])
def test_a_file_that_is_too_large_is_refused(client: FlaskClient, size: int) -> None:
    files = [{"filename": "a", "content": encoded(b"x" * size)}]
    answer = client.post("/communication/email/send", json={**MAIL, "attachments": files})
    assert answer.status_code == (422 if size < 20_000_000 else 413)
    form = {**MAIL, "file": (io.BytesIO(b"x" * size), "a")}
    answer = client.post("/communication/email/send", data=form, content_type="multipart/form-data")
    assert answer.status_code == (422 if size < 20_000_000 else 413)


def test_a_form_with_what_no_email_has_is_refused(client: FlaskClient) -> None:
    for form, field in (
        ({**MAIL, "colour": "red"}, "colour"),
        ({**MAIL, "subject": ["a", "b"]}, "subject"),
    ):
        answer = client.post(
            "/communication/email/send", data=form, content_type="multipart/form-data"
        )
        assert answer.status_code == 422
        assert list(answer.json["errors"]) == [field]  # type: ignore[index]


def test_a_browsers_form_needs_the_token(app: Flask, client: FlaskClient) -> None:
    client.set_cookie("session", "x")
    plain = client.post("/communication/email/send", data=MAIL, content_type="multipart/form-data")
    assert plain.status_code == 403
    client.get("/communication/messages")
    cookie = client.get_cookie("communication_csrf", path="/communication/")
    assert cookie is not None
    token = cookie.value
    form = {**MAIL, "csrf_token": token}
    answer = client.post("/communication/email/send", data=form, content_type="multipart/form-data")
    assert answer.status_code == 200, answer.text


def test_the_story_of_an_email_has_its_subject_recipients_and_files(
    app: Flask, client: FlaskClient, post: Post
) -> None:
    post.failing = {BOB: Refused("no such user", code="5.1.1")}
    uuid = sent(
        client,
        to=[ANN, BOB],
        html="<p>Hi</p>",
        attachments=[{"filename": "a.bin", "content": encoded(b"x")}],
    )
    work(app)
    story: Any = client.get(f"/communication/messages/{uuid}").json
    data = story["data"]
    assert (data["status"], data["mail"]["subject"], data["mail"]["has_html"]) == (
        "sent",
        "Hi",
        True,
    )
    assert data["mail"]["files"] == [
        {
            "place": 0,
            "filename": "a.bin",
            "content_type": "application/octet-stream",
            "content_id": None,
        }
    ]
    assert [(one["address"], one["status"], one["error_code"]) for one in data["recipients"]] == [
        (ANN, "sent", None),
        (BOB, "rejected", "5.1.1"),
    ]
    listed: Any = client.get("/communication/messages/?channel=email&status=sent").json
    assert listed["data"][0]["mail"]["subject"] == "Hi"
    answer: Any = client.post(
        "/communication/email/delivery_report", json={"msg_uuids": [uuid, "x"]}
    ).json
    assert answer["data"] == [{"msg_uuid": uuid, "status": "sent"}]


def test_a_retry_that_could_arrive_twice_is_a_conflict(app: Flask, client: FlaskClient) -> None:
    uuid = sent(client)
    work(app)
    answer = client.post("/communication/email/retry", json={"msg_uuid": uuid})
    assert answer.status_code == 409
    assert client.post("/communication/email/retry", json={"msg_uuid": "x"}).status_code == 404


def test_an_email_that_is_sent_again_has_an_emails_lifetime(
    app: Flask, client: FlaskClient
) -> None:
    uuid = sent(client)
    with state_of(app).database.write() as connection:
        connection.execute(text("UPDATE communication_message SET status = 'unknown'"))
    answer = client.post(f"/communication/messages/{uuid}/resolve", json={"decision": "resend"})
    assert answer.status_code == 200
    with app.app_context():
        message = Email.get(uuid)
    assert message.expires_at - message.updated_at > timedelta(hours=23)


def test_a_mailbox_is_read_on_request(app: Flask, client: FlaskClient, post: Post) -> None:
    url = "/communication/email/sync_inbox/"
    assert client.post(url, json={}).json == {
        "success": True,
        "data": {"fetched": 1, "new": 1, "failed": 0},
    }
    post.trouble = NotSent("the line is dead")
    answer = client.post(url, json={"key": "main"})
    assert (answer.status_code, answer.json["msg"]) == (  # type: ignore[index]
        502,
        "the mailbox cannot be read: the line is dead",
    )
    assert client.post(url, json={}).json["data"]["failed"] == 1  # type: ignore[index]
    assert client.post(url, json={"key": "other"}).status_code == 404


def test_strangers_see_and_send_nothing(
    make_app: MakeApp, upgraded_sqlite_url: str, post: Post
) -> None:
    app = make_app(upgraded_sqlite_url, authorize=None)
    install(app, post, type="email")
    with app.app_context():
        uuid = Email(to=ANN, subject="Hi", body="Hi", sender=BOB).send()
        reader = tokens.create(state_of(app), "reader", ["message.read"], None)
    client = app.test_client()
    for path in (f"email/html/{uuid}", f"email/file/{uuid}/0"):
        assert client.get(f"/communication/{path}").status_code == 401
    for path in ("send", "retry", "delivery_report", "sync_inbox"):
        assert client.post(f"/communication/email/{path}", json=MAIL).status_code == 401
    bearer = {"Authorization": f"Bearer {reader}"}
    assert client.post("/communication/email/send", json=MAIL, headers=bearer).status_code == 403
    assert client.get(f"/communication/email/html/{uuid}", headers=bearer).status_code == 200
