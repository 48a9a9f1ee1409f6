"""Addresses and headers take what people write, and nothing that breaks a line."""

from __future__ import annotations

from email.utils import formataddr
from typing import Any

import pytest

from flask_communication import Email
from flask_communication.errors import InvalidMessage, Refused
from flask_communication.formats import addresses, mail
from flask_communication.formats.text import header_line
from flask_communication.providers.base import OutboundEmail
from flask_communication.providers.simulator import Simulator
from flask_communication.providers.smtp.mime import compose
from tests.support.apps import MakeApp, install, work

ANN = "ann@example.com"
WRITTEN = [
    "👩\u200d💻 Welcome",
    "می\u200cخواهم",
    "10\u00a0€",
    "Screenshot at 1.00.00\u202fPM.png",
    # Unicode knows it since 2024, Python since 3.14.
    "\U0001fae9 tired",
    "Donau\u00addampf",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "",
]
BREAKING = ["\r", "\n", "\0", "\t", "\x85", "\u2028", "\u2029", *map(chr, range(0x202A, 0x202F))]
BREAKING += [*map(chr, range(0x2066, 0x206A)), "\ud800", "\U0003fffe", "\uffff"]


@pytest.mark.parametrize("line", WRITTEN)
def test_what_people_write_is_a_line(line: str) -> None:
    assert header_line("subject", line, 100) == line
    assert Email(ANN).attach(b"x", line or "x").files[0].filename == (line or "x")
    assert addresses.mailbox("to", (line, ANN)) == (f"{line} <{ANN}>" if line else ANN)


@pytest.mark.parametrize("bad", BREAKING, ids=ascii)
def test_what_breaks_a_line_or_turns_it_is_refused(bad: str) -> None:
    with pytest.raises(InvalidMessage):
        header_line("subject", f"a{bad}b", 100)
    with pytest.raises(InvalidMessage):
        Email(ANN).attach(b"x", f"a{bad}b")
    with pytest.raises(InvalidMessage):
        addresses.mailbox("to", (f"a{bad}b", ANN))


MAILBOXES = {
    "ann@EXAMPLE.com": ANN,
    "Ann <ANN@Example.COM>": "Ann <ANN@example.com>",
    "ann@bücher.example": "ann@xn--bcher-kva.example",
    "ann@BÜCHER.Example": "ann@xn--bcher-kva.example",
    "ann@straße.example": "ann@xn--strae-oqa.example",
    "ann@हिन्दी.example": "ann@xn--j2bd4cyah0f.example",
    "jörg@bücher.example": "jörg@xn--bcher-kva.example",
    formataddr(("Änn Lee", ANN)): f"Änn Lee <{ANN}>",
    formataddr(("ü" * 200, ANN)): f"{'ü' * 200} <{ANN}>",
    formataddr(("Lee, Ann", ANN)): f"Lee, Ann <{ANN}>",
    formataddr(('Ann "B" Lee', ANN)): f'"Ann \\"B\\" Lee" <{ANN}>',
    f'Ann "The Boss" Lee <{ANN}>': f'"Ann \\"The Boss\\" Lee" <{ANN}>',
    f'"a <bob@example.com>" <{ANN}>': f'"a <bob@example.com>" <{ANN}>',
    f'"Ann" <{ANN}>': f"Ann <{ANN}>",
    f"=?no-such?q?a?= <{ANN}>": f"=?no-such?q?a?= <{ANN}>",
}


@pytest.mark.parametrize("given", MAILBOXES)
def test_a_mailbox_is_read_as_it_was_meant(given: str) -> None:
    found = addresses.mailbox("to", given)
    assert found == MAILBOXES[given]
    assert addresses.mailbox("to", found) == found


@pytest.mark.parametrize(
    "given",
    [
        f"=?utf-8?q?a=0D=0ABcc:?= <{ANN}>",
        f"=?utf-8?b?4oCu?= <{ANN}>",
        f'"Ann" <bob@example.com>, "Bob" <{ANN}>',
        f"Ann <bob@example.com>, Bob <{ANN}>",
        "ann@" + "ü" * 300 + ".example",
        "ann@-ü.example",
        "ann@a_ü.example",
        "ann@ü..example",
        "ann@xn--ü.example",
        f"{'ü' * 201} <{ANN}>",
        " " * 100_000 + ANN,
    ],
)
def test_what_is_no_mailbox_is_refused(given: str) -> None:
    with pytest.raises(InvalidMessage, match="to"):
        addresses.mailbox("to", given)


def test_one_person_gets_one_mail_and_is_found_however_the_address_is_spelled(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app = make_app(upgraded_url)
    install(app, Simulator(), type="email", is_default=True)
    with app.app_context():
        uuid = Email(
            ["ann@x.example", "ann@X.example"], "Hi", cc="Ann <ann@x.EXAMPLE>", sender=ANN
        ).send()
        other = Email("bob@bücher.example", "Hi", sender="Shop <shop@bücher.example>").send()
        work(app)
        assert [one.address for one in Email.get(uuid).recipients] == ["ann@x.example"]
        for spelled in ("ann@X.example", "Ann@X.example", "ann@x.example"):
            assert [one.uuid for one in Email.messages(destination=spelled).items] == [uuid]
        found = Email.messages(destination="bob@bücher.example").items
        assert [(one.uuid, one.status) for one in found] == [(other, "sent")]
        assert found[0].mail is not None
        assert found[0].mail.rfc_message_id == f"<{other}@xn--bcher-kva.example>"


def test_a_guard_knows_its_recipients_however_they_are_spelled(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_ONLY_TO=["@Bücher.Example", "ann@X.Example"])
    install(app, Simulator(), type="email", is_default=True)
    with app.app_context():
        uuid = Email(
            ["bob@bücher.example", "ann@x.example", "eve@x.example"], "Hi", sender=ANN
        ).send()
        work(app)
        assert [(one.address, one.status) for one in Email.get(uuid).recipients] == [
            ("bob@xn--bcher-kva.example", "sent"),
            ("ann@x.example", "sent"),
            ("eve@x.example", "rejected"),
        ]


MESSAGE_IDS = ["<a@b>", "<CAF+x=y.z@mail.example.net>", "<no-at-sign>", f"<{'a' * 920}>"]
NO_MESSAGE_IDS = ["", "a@b", "<>", "<a b@c>", "<a@b", "<a<b@c>", "<ü@x.example>", f"<{'a' * 921}>"]


@pytest.mark.parametrize("text", [*MESSAGE_IDS, *NO_MESSAGE_IDS], ids=lambda text: text[:20])
def test_who_answers_parses_and_sends_agrees_on_what_a_message_id_is(text: str) -> None:
    is_one = text in MESSAGE_IDS
    assert addresses.is_message_id(text) is is_one
    came = mail.parse(f"From: {ANN}\r\nMessage-ID: {text}\r\n\r\nHi".encode())
    assert (came.message_id == text) is is_one
    try:
        written = composed(message_id=text)
    except Refused:
        assert not is_one
    else:
        assert is_one
        assert text in written


RESERVED = """from sender to cc bcc reply-to subject date message-id in-reply-to references
mime-version received return-path authentication-results content-type content-language resent-to
arc-seal dkim-signature""".split()


@pytest.mark.parametrize("name", [*RESERVED, "X y", "X:", "", "x" * 65, "Über"])
def test_the_same_headers_are_reserved_for_a_caller_and_for_a_provider(name: str) -> None:
    for one in (name, name.upper()):
        with pytest.raises(InvalidMessage, match="headers"):
            addresses.headers({one: "x"})
        with pytest.raises(Refused, match="cannot be set"):
            composed(headers={one: "x"})


def test_a_free_header_is_set_by_both() -> None:
    assert addresses.headers({"X-Shop": "17"}) == {"X-Shop": "17"}
    assert "X-Shop: 17\r\n" in composed(headers={"X-Shop": "17"})


def test_a_word_of_a_header_is_as_long_as_a_line_can_carry() -> None:
    longest = {"x" * 64: "w" * addresses.LONGEST_WORD}
    assert addresses.headers(longest) == longest
    assert max(map(len, composed(headers=longest).split("\r\n"))) <= 998
    too_long = {"X": "w" * (addresses.LONGEST_WORD + 1)}
    with pytest.raises(InvalidMessage, match="no word of more than"):
        addresses.headers(too_long)
    with pytest.raises(Refused, match="has a word of more than"):
        composed(headers=too_long)


@pytest.mark.parametrize("text", ["ann@-x.example", "a@b@c.example", "ann@x..example", "a b@c.d"])
def test_what_is_no_address_is_none_for_a_caller_a_provider_and_a_bounce(text: str) -> None:
    assert not addresses.is_address(text)
    with pytest.raises(InvalidMessage):
        addresses.mailbox("to", text)
    with pytest.raises(Refused, match="is no address"):
        composed(sender=text)


def composed(**fields: Any) -> str:
    """Return an email as it is sent."""
    given = {"key": "k", "message_id": "<k@x.example>", "sender": ANN, "recipients": [ANN]}
    return compose(OutboundEmail(**{**given, "subject": "Hi", "body": "Hi", **fields})).decode()
