"""What compose() writes, the standard library's parser reads back."""

from __future__ import annotations

import email
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default
from email.utils import getaddresses, unquote
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_communication.errors import Refused
from flask_communication.providers.base import File, OutboundEmail
from flask_communication.providers.smtp.mime import address_of, compose

LOGO = File(
    "logo.png",
    "image/png",
    b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    content_id="logo@shop.example",
)
TERMS = File("terms.pdf", "application/pdf", b"%PDF-1.7\n" + b"x" * 5000)


def letter(**changes: Any) -> OutboundEmail:
    fields: dict[str, Any] = {
        "key": "k",
        "message_id": "<1@shop.example>",
        "sender": "Shop <shop@shop.example>",
        "recipients": ["ann@x.example"],
        "to": ["Ann <ann@x.example>"],
        "subject": "Your order",
        "body": "Thank you.",
    }
    return OutboundEmail(**(fields | changes))


def read(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def composed(**changes: Any) -> EmailMessage:
    raw = compose(letter(**changes))
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\x00", raw)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert raw.endswith(b"\r\n")
    return read(raw)


def shape(message: Any) -> Any:
    kind = message.get_content_type()
    return (
        (kind, [shape(part) for part in message.iter_parts()]) if message.is_multipart() else kind
    )


def text(message: EmailMessage, kind: str = "plain") -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def test_a_plain_mail_is_one_part_with_its_headers() -> None:
    message = composed(
        cc=["bob@x.example"],
        reply_to=["Help <help@shop.example>"],
        in_reply_to="<0@x.example>",
        references=["<a@x.example>", "<0@x.example>"],
        headers={"List-Unsubscribe": "<https://shop.example/bye?u=1>", "X-Order": "7"},
    )
    assert shape(message) == "text/plain"
    assert dict(message.items()) | {"Date": ""} == {
        "From": "Shop <shop@shop.example>",
        "To": "Ann <ann@x.example>",
        "Cc": "bob@x.example",
        "Reply-To": "Help <help@shop.example>",
        "Subject": "Your order",
        "Date": "",
        "Message-ID": "<1@shop.example>",
        "In-Reply-To": "<0@x.example>",
        "References": "<a@x.example> <0@x.example>",
        "List-Unsubscribe": "<https://shop.example/bye?u=1>",
        "X-Order": "7",
        "MIME-Version": "1.0",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": "7bit",
    }
    assert abs(message["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)
    assert text(message) == "Thank you.\r\n"


def test_parts_nest_as_mail_programs_expect() -> None:
    message = composed(html='<img src="cid:logo@shop.example">', files=[TERMS, LOGO])
    alternative = ["text/plain", ("multipart/related", ["text/html", "image/png"])]
    assert shape(message) == (
        "multipart/mixed",
        [("multipart/alternative", alternative), "application/pdf"],
    )
    assert shape(composed(html="<p>", body="")) == "text/html"
    assert shape(composed(html="<p>")) == ("multipart/alternative", ["text/plain", "text/html"])
    logo = next(part for part in message.walk() if part.get_content_type() == "image/png")
    assert logo["Content-ID"] == "<logo@shop.example>"
    assert logo.get_content_disposition() == "inline"
    assert logo.get_payload(decode=True) == LOGO.content


def test_a_picture_without_html_to_show_it_is_an_attachment() -> None:
    message = composed(files=[LOGO])
    (part,) = message.iter_attachments()
    assert part.get_content_disposition() == "attachment"


def test_a_message_id_of_others_that_is_not_ascii_does_not_stop_a_reply() -> None:
    message = composed(in_reply_to="<ü@x.example>", references=["<a@x.example>", "<ü@x.example>"])
    assert message["In-Reply-To"] is None
    assert message["References"] == "<a@x.example>"


def test_a_long_address_to_unsubscribe_stays_whole() -> None:
    link = f"<https://shop.example/{'u' * 880}>"
    raw = compose(letter(headers={"List-Unsubscribe": link}))
    assert f"List-Unsubscribe: {link}\r\n".encode() in raw
    with pytest.raises(Refused, match="shorten"):
        compose(letter(headers={"List-Unsubscribe": f"<https://shop.example/{'u' * 950}>"}))


def test_those_in_bcc_are_in_no_header() -> None:
    raw = compose(letter(recipients=["ann@x.example", "secret@y.example"]))
    assert b"secret" not in raw
    assert b"undisclosed-recipients" in compose(letter(to=(), recipients=["secret@y.example"]))


def test_a_message_in_base64_would_be_read_as_a_message_so_it_is_a_plain_file() -> None:
    (part,) = composed(
        files=[File("old.eml", "message/rfc822", b"Subject: x\n\ny")]
    ).iter_attachments()
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_content() == b"Subject: x\n\ny"


@pytest.mark.parametrize(
    "name",
    [
        "a b.pdf",
        'say "hi".txt',
        "C:\\x",
        "Прайс-лист.pdf",
        "%41.txt",
        "'.txt",
        "名" * 200,
        "x" * 300,
        "é;=*.pdf",
    ],
)
def test_file_names_arrive_whole(name: str) -> None:
    (part,) = composed(files=[File(name, "text/csv; charset=utf-8", b"1")]).iter_attachments()
    assert part.get_filename() == name


@pytest.mark.parametrize(
    "subject",
    [
        "x " * 300 + "end",
        "ä" * 400,
        "=?utf-8?q?=0ABcc:?=",
        "two  spaces " * 20,
        "y" * 2000,
        "",
        "\U0001f600" * 50,
        "tab\there",
    ],
)
def test_subjects_arrive_whole(subject: str) -> None:
    assert composed(subject=subject)["Subject"] == subject


@pytest.mark.parametrize(
    ("mailbox", "name", "address"),
    [
        ("ann@x.example", "", "ann@x.example"),
        ("Doe, Ann <ann@x.example>", "Doe, Ann", "ann@x.example"),
        ('"Doe, \\"A\\"" <ann@x.example>', 'Doe, "A"', "ann@x.example"),
        ("Анна Иванова, директор <ann@x.example>", "Анна Иванова, директор", "ann@x.example"),
        ("b@evil.example, c <ann@x.example>", "b@evil.example, c", "ann@x.example"),
        ("=?utf-8?q?x?= <ann@x.example>", "=?utf-8?q?x?=", "ann@x.example"),
        ("Ü" * 100 + " <ann@x.example>", "Ü" * 100, "ann@x.example"),
    ],
)
def test_a_mailbox_is_one_mailbox_whatever_its_name(mailbox: str, name: str, address: str) -> None:
    assert address_of(mailbox) == address
    # The newer parser puts a space between two encoded words of a name (RFC 2047 §6.2 says none).
    message = email.message_from_bytes(
        compose(letter(to=[mailbox, "bob@x.example"], sender=mailbox))
    )
    assert mailboxes(message["To"]) == [(name, address), ("", "bob@x.example")]
    assert mailboxes(message["From"]) == [(name, address)]


def mailboxes(header: str) -> list[tuple[str, str]]:
    return [(str(make_header(decode_header(name))), spec) for name, spec in getaddresses([header])]


def test_many_addresses_fold() -> None:
    to = [f"Somebody Number{n} <person{n}@example.com>" for n in range(200)]
    assert [str(a) for a in composed(to=to)["To"].addresses] == to


def test_an_address_that_is_not_ascii_stays_as_it_is() -> None:
    raw = compose(letter(to=["Jörg <jörg@x.example>"]))
    assert "<jörg@x.example>".encode() in raw
    assert compose(letter(subject="ü", body="ü", html="ü")).isascii()


def test_a_domain_that_is_not_ascii_is_written_so_that_every_server_takes_it() -> None:
    message = composed(sender="Shop <shop@bücher.example>", reply_to=["help@Bücher.Example"])
    assert message["From"].addresses[0].addr_spec == "shop@xn--bcher-kva.example"
    assert message["Reply-To"] == "help@xn--bcher-kva.example"
    with pytest.raises(Refused, match="domain"):
        compose(letter(to=["ann@-ü.example"]))


def test_without_smtputf8_a_recipient_is_shown_without_the_address() -> None:
    email = letter(to=["Jörg <jörg@x.example>", "ann@x.example"], cc=["jörg@x.example"])
    raw = compose(email, plain=True)
    assert raw.isascii()
    message = read(raw)
    assert [one.addr_spec for one in message["To"].addresses] == ["ann@x.example"]
    assert [str(one.display_name) for one in message["To"].groups if one.display_name] == [
        "Jörg jörg@x.example"
    ]
    for place in ({"sender": "jörg@x.example"}, {"reply_to": ["jörg@x.example"]}):
        with pytest.raises(Refused, match=r"jörg@x\.example, is not ASCII before the @"):
            compose(letter(**place), plain=True)


@pytest.mark.parametrize("name", ["X-A", "X-" + "A" * 40, "X-" + "A" * 60])
def test_lines_of_encoded_words_have_76_characters_at_most(name: str) -> None:
    names = ["ü" * 40, "ü" * 26, "ü" * 5 + "x" * 60, "ü"]
    email = letter(
        subject="ä" * 400,
        sender=f"{'ü' * 60} <shop@shop.example>",
        to=[f"{one} <{'ann' * 9}@x.example>" for one in names],
        reply_to=[f"{one} <a@x.example>" for one in names],
        headers={name: "ö" * 100},
    )
    head = compose(email).decode().partition("\r\n\r\n")[0].split("\r\n")
    assert all(len(line) <= 76 for line in head if "=?" in line)
    message = read(compose(email))
    assert (message["Subject"], squeezed(message[name])) == ("ä" * 400, "ö" * 100)
    assert mailboxes(email_header(compose(email), "To"))[0][0] == "ü" * 40


def email_header(raw: bytes, name: str) -> str:
    return str(email.message_from_bytes(raw)[name])


BREAKS = ["\r", "\n", "\r\n ", "\0", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c"]
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "subject": lambda bad: {"subject": bad},
    "sender": lambda bad: {"sender": f"{bad} <a@b.example>"},
    "sender's address": lambda bad: {"sender": f"a@b.example{bad}x"},
    "to": lambda bad: {"to": [f"{bad} <a@b.example>"]},
    "cc": lambda bad: {"cc": [f"A <a{bad}@b.example>"]},
    "reply_to": lambda bad: {"reply_to": [f"{bad}<a@b.example>"]},
    "message_id": lambda bad: {"message_id": f"<a{bad}@b>"},
    "in_reply_to": lambda bad: {"in_reply_to": f"<a@b>{bad}"},
    "references": lambda bad: {"references": ["<a@b>", f"<a{bad}@b>"]},
    "header name": lambda bad: {"headers": {f"X-A{bad}": "1"}},
    "header value": lambda bad: {"headers": {"X-A": f"1{bad}Bcc: x"}},
    "file name": lambda bad: {"files": [File(f"a{bad}b", "text/plain", b"")]},
    "content type": lambda bad: {"files": [File("a", f"text/plain{bad}", b"")]},
    "content id": lambda bad: {"html": "x", "files": [File("a", "text/plain", b"", f"a{bad}")]},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", BREAKS, ids=ascii)
def test_no_value_can_begin_another_header(place: str, bad: str) -> None:
    with pytest.raises(Refused):
        compose(letter(**PLACES[place](f"x{bad}Bcc: evil@x.example")))
    with pytest.raises(Refused):
        compose(letter(**PLACES[place](bad)))


@pytest.mark.parametrize(
    "name",
    [
        "Bcc",
        "bcc",
        "From",
        "SUBJECT",
        "Content-Type",
        "DKIM-Signature",
        "Received",
        "X A",
        "X:",
        "",
        "x" * 65,
        "Ä",
    ],
)
def test_headers_that_are_ours_or_none_are_refused(name: str) -> None:
    with pytest.raises(Refused, match="cannot be set"):
        compose(letter(headers={name: "1"}))


@pytest.mark.parametrize(
    "address", ["a@b, c@d", '"<a@b>"@c', "a", "a@", "<a@b> x", "a b@c", "x" * 65 + "@a.example"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="is no address"):
        compose(letter(to=[address]))


def test_half_a_character_is_refused() -> None:
    for place in ("subject", "body", "html"):
        with pytest.raises(Refused, match="surrogate"):
            compose(letter(**{place: "\ud800"}))


unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
lines = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=300)


@given(
    body=unicode_text, html=st.none() | unicode_text, content=st.binary(), long=st.integers(0, 1200)
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_text_and_every_file_comes_back(
    body: str, html: str | None, content: bytes, long: int
) -> None:
    body += "z" * long
    message = composed(body=body, html=html, files=[File("f", "application/zip", content)])
    if body or html is None:
        assert normal(text(message)) == normal(body)
    if html is not None:
        assert normal(text(message, "html")) == normal(html)
    (part,) = message.iter_attachments()
    assert part.get_content() == content


def normal(written: str) -> str:
    """Ends of lines are CRLF on the way, and the last line has one."""
    written = written.replace("\r\n", "\n").replace("\r", "\n")
    return written if written.endswith("\n") else written + "\n"


@given(subject=lines, name=lines, value=lines, filename=lines)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_line_of_text_comes_back(subject: str, name: str, value: str, filename: str) -> None:
    message = composed(
        subject=subject,
        to=[f"{name} <a@b.example>"],
        headers={"X-Note": value},
        files=[File(filename, "text/plain", b"")],
    )
    assert squeezed(message["Subject"]) == squeezed(subject)
    assert squeezed(message["X-Note"]) == squeezed(value)
    assert message["To"].addresses[0].addr_spec == "a@b.example"
    (part,) = message.iter_attachments()
    # The reader takes quotes, and angle brackets, off a name that is written in them.
    assert (part.get_filename() or "") in (filename.strip(), unquote(filename.strip()))


def squeezed(value: str) -> str:
    """White space around a header's value is nobody's."""
    return value.strip(" ")
