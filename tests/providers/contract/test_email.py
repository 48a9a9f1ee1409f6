"""Email over the HTTP contract: what one end writes, the other end reads."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask, jsonify
from flask.testing import FlaskClient

from flask_communication import Email
from flask_communication.configs.state import state_of
from flask_communication.email import inbox
from flask_communication.errors import Denied, NotSent, OutcomeUnknown, ProviderError, Refused
from flask_communication.providers.base import (
    LARGEST_MAIL,
    MOST_MAIL_BYTES,
    Accepted,
    File,
    InboundEmail,
    Inbox,
    OutboundEmail,
    OutboundSMS,
    Provider,
    Report,
)
from flask_communication.providers.blueprint import provider_blueprint
from flask_communication.providers.contract import email as mail_contract
from flask_communication.providers.remote import _INBOX_DEADLINE, RemoteProvider
from flask_communication.providers.smtp import SMTP, imap
from tests.providers.smtp.test_imap import mailbox, server
from tests.support.apps import MakeApp, install, work
from tests.support.seed_provider import served

pytestmark = pytest.mark.usefixtures("any_address")

ANN, BOB, EVE = "ann@example.com", "bob@example.com", "eve@example.com"
CONFIG = {"authkey": "CANARY_9f81"}
MAIL = OutboundEmail(
    key="k1",
    message_id="<uuid@example.com>",
    sender="Shop <shop@example.com>",
    recipients=[ANN, BOB],
    subject="Grüße ✉",
    body="Hello\r\nWorld",
    html="<p>Hello</p>",
    to=["Ann Müller <ann@example.com>"],
    cc=[BOB],
    reply_to=["help@example.com"],
    headers={"X-Order": "17"},
    in_reply_to="<a@x.example>",
    references=["<a@x.example>"],
    files=[
        File("café.png", "image/png", bytes(range(256)), "logo"),
        File("empty.txt", "text/plain", b""),
    ],
)
SEND = {
    "message_id": "<uuid@example.com>",
    "sender": "shop@example.com",
    "recipients": [ANN],
    "subject": "Hello",
    "config": CONFIG,
}


class Post(Provider):
    """Does what it is told to, and remembers what it was given."""

    name = "post"
    types = ("sms", "email")
    features = frozenset({"inbox"})

    def __init__(self) -> None:
        self.does: Any = Accepted("r1", {"cost": 1})
        self.heard: list[tuple[Any, Mapping[str, Any]]] = []

    def do(self, subject: Any, config: Mapping[str, Any]) -> Any:
        self.heard.append((subject, config))
        if isinstance(self.does, Exception):
            raise self.does
        return self.does

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        result: Accepted = self.do(email, config)
        return result

    def email_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        reports: Sequence[Report] = self.do(list(refs), config)
        return reports

    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        found: Inbox = self.do((dict(cursor), limit), config)
        return found


@pytest.fixture
def post() -> Post:
    return Post()


def app_of(provider: Provider, **options: Any) -> Flask:
    app = Flask("host", root_path="/")
    app.register_blueprint(provider_blueprint(provider, **options))
    return app


@pytest.fixture
def client(post: Post) -> FlaskClient:
    return app_of(post, unsigned=True).test_client()


@pytest.fixture
def remote(post: Post) -> Iterator[RemoteProvider]:
    with served(app_of(post, secret="a secret")) as url:
        yield RemoteProvider("post", url + "/post", "a secret")


# --- The journey
# -------------------------------------------------------------------------------------


def test_an_email_survives_the_journey_to_its_last_byte(remote: RemoteProvider, post: Post) -> None:
    assert remote.send_email(MAIL, CONFIG) == Accepted("r1", {"cost": 1})
    assert post.heard == [(MAIL, CONFIG)]


def test_a_retry_names_the_email_that_the_provider_knows(
    remote: RemoteProvider, post: Post
) -> None:
    again = OutboundEmail(**{**vars(MAIL), "provider_ref": "r1"})
    assert remote.send_email(again, CONFIG) == Accepted("r1")
    post.does = Accepted("r2")
    assert remote.send_email(again, CONFIG) == Accepted("r2")
    assert [email.provider_ref for email, _ in post.heard] == ["r1", "r1"]


def test_each_recipients_outcome_survives_the_journey(remote: RemoteProvider, post: Post) -> None:
    failed: dict[str, ProviderError] = {
        ANN: Refused("no such user", code="5.1.1", opted_out=True),
        BOB: NotSent("greylisted", retry_after=60),
    }
    post.does = Accepted("r1", failed=failed)
    got = remote.send_email(MAIL, CONFIG).failed
    assert isinstance(got[ANN], Refused)
    assert isinstance(got[BOB], NotSent)
    assert set(got) == {ANN, BOB}
    assert (got[ANN].code, getattr(got[ANN], "opted_out", None)) == ("5.1.1", True)
    assert getattr(got[BOB], "retry_after", None) == 60
    assert "no such user" in got[ANN].reason


@pytest.mark.parametrize(
    "raised", [NotSent("a"), Refused("b"), Denied("c"), OutcomeUnknown("d"), ValueError("e")]
)
def test_a_failure_survives_the_journey(
    remote: RemoteProvider, post: Post, raised: Exception
) -> None:
    post.does = raised
    arrives: dict[type[Exception], type[Exception]] = {Denied: Refused, ValueError: OutcomeUnknown}
    wanted = arrives.get(type(raised), type(raised))
    with pytest.raises(ProviderError) as caught:
        remote.send_email(MAIL, CONFIG)
    assert isinstance(caught.value, wanted)
    assert "CANARY" not in str(caught.value)


def test_reports_about_single_recipients_survive_the_journey(
    remote: RemoteProvider, post: Post
) -> None:
    when = datetime(2026, 11, 23, tzinfo=UTC)
    post.does = [
        Report("r1", "undelivered", "no such user", "5.1.1", "e1", when, recipient=ANN),
        Report("r1", "delivered", recipient=BOB, opted_out=True),
        Report("a stranger", "delivered"),
    ]
    assert remote.email_reports(["r1"], CONFIG) == post.does[:2]


def test_mails_of_an_inbox_survive_the_journey(remote: RemoteProvider, post: Post) -> None:
    when = datetime(2026, 11, 23, tzinfo=UTC)
    post.does = Inbox(
        [
            InboundEmail("1", bytes(range(256)), "Sent", when),
            InboundEmail("2", b"", flaw="too large"),
        ],
        {"INBOX": {"uid": 2}},
        more=True,
    )
    assert remote.fetch_inbox({"INBOX": {"uid": 0}}, 20, CONFIG) == post.does
    assert post.heard == [(({"INBOX": {"uid": 0}}, 20), CONFIG)]


def test_the_manifest_promises_email_and_the_inbox(remote: RemoteProvider) -> None:
    can = remote.learn()
    assert set(can.types) == {"sms", "email"}
    assert can.features == {"inbox", "stateless"}
    assert remote.has_inbox({})


def test_an_application_sends_and_reads_email_through_its_own_blueprint(
    make_app: MakeApp, upgraded_url: str, post: Post
) -> None:
    app = make_app(upgraded_url)
    app.register_blueprint(provider_blueprint(post))
    post.does = Accepted("r1", failed={BOB: Refused("no such user")})
    with app.app_context():
        install(app, state_of(app).registry.find("post"), type="email", is_default=True)
        uuid = (
            Email(to=[ANN, BOB], subject="Hi", body="Hi", sender="shop@example.com")
            .attach(b"x", "a.bin")
            .send()
        )
        work(app)
        message = Email.get(uuid)
        assert message.status == "sent"
        assert {one.address: one.status for one in message.recipients} == {
            ANN: "sent",
            BOB: "rejected",
        }
        post.does = Inbox(
            [InboundEmail("1", b"From: ann@example.com\r\nSubject: Re\r\n\r\nHello")], {"uid": 1}
        )
        assert Email.sync_inbox() == (1, 1, 0)


# --- Large mails
# -------------------------------------------------------------------------------------


def test_the_largest_inbox_fits_into_the_longest_answer(client: FlaskClient, post: Post) -> None:
    each, longest = MOST_MAIL_BYTES // mail_contract.MOST_MAILS, "\U0001f4ee" * 1000
    mails = [
        InboundEmail(longest, b"x" * each, longest, datetime(2026, 11, 23, tzinfo=UTC), longest)
        for _ in range(mail_contract.MOST_MAILS)
    ]
    post.does = Inbox(mails, {"a": "x" * (mail_contract.LONGEST_CURSOR - 10)}, more=True)
    answer = client.post("/post/email/inbox/", json={"config": CONFIG})
    assert MOST_MAIL_BYTES * 4 / 3 < len(answer.data) <= mail_contract.LONGEST_INBOX
    assert 2 * LARGEST_MAIL <= MOST_MAIL_BYTES


def test_a_call_for_mails_has_the_time_that_a_slow_server_takes_and_less_than_a_lease() -> None:
    assert len(imap.VISITS) * imap.DEADLINE < _INBOX_DEADLINE < inbox.LEASE


@pytest.mark.parametrize("listed", [20_000_000, 1000])
def test_large_mails_of_a_mailbox_come_over_http_one_after_the_other(listed: int) -> None:
    mails = dict.fromkeys(range(1, 5), b"Subject: large\r\n\r\n" + b"x" * 20_000_000)
    sizes = "".join(f"* 1 FETCH (UID {uid} RFC822.SIZE {listed})\r\n" for uid in mails).encode()
    config = {
        "host": "h",
        "imap_host": "127.0.0.1",
        "imap_security": "none",
        "imap_username": "ann",
    }
    asked = {"UID FETCH 1,2,3,4 (UID RFC822.SIZE INTERNALDATE)": sizes}
    app = app_of(SMTP(), secret="a secret")
    app.config["COMMUNICATION_ALLOW_PRIVATE_HOSTS"] = ["127.0.0.1"]
    with server(mailbox(mails, asked)) as port, served(app) as url:
        remote = RemoteProvider("smtp", url + "/smtp", "a secret")
        cursor: Mapping[str, Any] = {}
        found: list[str] = []
        for _ in range(4):
            came = remote.fetch_inbox(
                cursor, 100, {**config, "imap_port": port, "imap_password": "pw"}
            )
            assert sum(len(one.raw) for one in came.mails) <= MOST_MAIL_BYTES
            found += [one.uid for one in came.mails if len(one.raw) > 20_000_000]
            cursor = came.cursor
    assert found == [f"INBOX/7/{uid}" for uid in mails]
    assert not came.more


def test_who_brings_more_than_fits_is_asked_mail_by_mail(
    remote: RemoteProvider, post: Post
) -> None:
    large = [InboundEmail(str(n), b"x" * 20_000_000) for n in range(3)]

    def fetch(cursor: Mapping[str, Any], limit: int, _config: Mapping[str, Any]) -> Inbox:
        read = int(cursor.get("read", 0))
        found = large[read : read + limit]
        return Inbox(found, {"read": read + len(found)}, read + len(found) < len(large))

    post.fetch_inbox = fetch  # type: ignore[method-assign,assignment]
    assert remote.fetch_inbox({}, 50, CONFIG) == Inbox(large[:1], {"read": 1}, more=True)


# --- What a caller may get wrong
# ---------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no recipients": ({"recipients": []}, "recipients"),
    "10,000 recipients": ({"recipients": [ANN] * 10_000}, "recipients"),
    "a recipient of two lines": ({"recipients": ["a@x.example\r\nBcc: b@x.example"]}, "recipients"),
    "a recipient that is a number": ({"recipients": [1]}, "recipients"),
    "a subject of two lines": ({"subject": "Hi\r\nBcc: b@x.example"}, "subject"),
    "a subject of two lines, by Unicode": ({"subject": "Hi\u2028there"}, "subject"),
    "a header's name of two lines": ({"headers": {"X-A: b\r\nBcc": "b@x.example"}}, "headers"),
    "a header's value of two lines": ({"headers": {"X-A": "b\nBcc: c"}}, "headers"),
    "a sender of two lines": ({"sender": "a@x.example\nX: y"}, "sender"),
    "no sender": ({"sender": None}, "sender"),
    "no message_id": ({"message_id": None}, "message_id"),
    "a body that is a list": ({"body": ["Hi"]}, "body"),
    "a file that is no base64": (
        {"attachments": [{"filename": "a", "content": "@@@"}]},
        "attachments",
    ),
    "a file without content": ({"attachments": [{"filename": "a"}]}, "attachments"),
    "a file's name of two lines": (
        {"attachments": [{"filename": "a\nb", "content": ""}]},
        "attachments",
    ),
    "200 files": ({"attachments": [{"filename": "a", "content": ""}] * 200}, "attachments"),
    "a configuration that is a list": ({"config": []}, "config"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_body_that_is_wrong_names_the_field(client: FlaskClient, post: Post, name: str) -> None:
    changed, field = WRONG[name]
    answer = client.post("/post/email/send/", json={**SEND, **changed})
    assert answer.status_code == 422
    assert answer.json is not None
    assert list(answer.json["errors"]) == [field]
    assert post.heard == []


def test_an_email_that_is_too_large_is_refused(client: FlaskClient) -> None:
    content = base64.b64encode(b"x" * 26_000_000).decode()
    answer = client.post(
        "/post/email/send/", json={**SEND, "attachments": [{"filename": "a", "content": content}]}
    )
    assert answer.status_code == 413


def test_a_retry_needs_a_reference(client: FlaskClient) -> None:
    assert client.post("/post/email/retry/", json=SEND).status_code == 422


@pytest.mark.parametrize(
    "changed", [{"limit": 0}, {"limit": "many"}, {"cursor": []}, {"limit": 10**9}]
)
def test_an_inbox_body_that_is_wrong_names_the_field(
    client: FlaskClient, changed: dict[str, Any]
) -> None:
    answer = client.post("/post/email/inbox/", json=changed)
    assert (answer.status_code, list(answer.json["errors"])) == (422, list(changed))  # type: ignore[index]


@pytest.mark.parametrize("path", ["send", "retry", "delivery_report", "inbox"])
def test_what_a_provider_does_not_do_is_not_found(path: str) -> None:
    class Plain(Provider):
        name = "post"

        def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
            return Accepted("r1")

    answer = app_of(Plain(), unsigned=True).test_client().post(f"/post/email/{path}/", json=SEND)
    assert answer.status_code == 404


# --- What a provider may get wrong
# -------------------------------------------------------------------


def saying(data: Any) -> Flask:
    app = Flask("hostile")
    app.add_url_rule(
        "/<path:path>", view_func=lambda **_: jsonify(success=True, data=data), methods=["POST"]
    )
    return app


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"mails": "many", "cursor": {}},
        {"mails": [{"uid": "1", "raw": "@@@"}], "cursor": {}},
        {"mails": [{"uid": "1"}], "cursor": {}},
        {"mails": [{"uid": "a\nb", "raw": ""}], "cursor": {}},
        {"mails": [], "cursor": []},
        {"mails": []},
        {"mails": [], "cursor": {"a": "x" * 70_000}},
        {"mails": [{"uid": "1", "raw": ""}] * 1001, "cursor": {}},
        {"mails": [], "cursor": {}, "more": "yes"},
    ],
)
def test_an_inbox_in_another_form_is_not_read(data: Any) -> None:
    with (
        served(saying(data)) as url,
        pytest.raises(NotSent, match="not in the form of the contract"),
    ):
        RemoteProvider("hostile", url).fetch_inbox({}, 10, {})


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ("all", {}),
        ([ANN], {}),
        ({EVE: {"success": False}}, {}),
        ({ANN: {"success": False}}, {ANN: Refused}),
        ({ANN: "no"}, {ANN: OutcomeUnknown}),
        ({ANN: {"success": True, "msg_uuid": "x"}}, {ANN: OutcomeUnknown}),
        ({ANN: {"success": False, "outcome": "not_sent", "retry_after": "soon"}}, {ANN: NotSent}),
    ],
)
def test_what_is_said_of_recipients_is_believed_as_far_as_it_is_clear(
    failed: Any, expected: Any
) -> None:
    with served(saying({"msg_uuid": "r1", "failed": failed})) as url:
        got = RemoteProvider("hostile", url).send_email(MAIL, {}).failed
    assert {one: type(why) for one, why in got.items()} == expected


@pytest.mark.parametrize("data", [None, {}, {"msg_uuid": None}, {"msg_uuid": "x" * 300}, "r1"])
def test_an_acceptance_without_a_reference_is_unknown(data: Any) -> None:
    with served(saying(data)) as url, pytest.raises(OutcomeUnknown):
        RemoteProvider("hostile", url).send_email(MAIL, {})
