"""Incoming mail is read as far as it can be, whatever it is."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from flask_communication.formats import mail
from flask_communication.formats.bounces import RecipientReport
from flask_communication.formats.files import tidy_filename
from flask_communication.formats.html import text_of
from flask_communication.formats.mail import ParsedMail
from flask_communication.formats.text import LONGEST_TEXT
from flask_communication.providers.base import OutboundEmail
from flask_communication.providers.smtp.mime import compose
from tests.support.hostile_mail import corpus, mutations

CORPUS = dict(corpus())
SEED = 20261123

GMAIL = """\
Delivered-To: shop@example.com
Received: from mail-a.example.net by mx.example.com; Mon, 23 Nov 2026 10:00:00 +0100
Authentication-Results: mx.example.com; spf=pass
MIME-Version: 1.0
References: <first@example.com> <second@example.com>
In-Reply-To: <second@example.com>
From: =?UTF-8?Q?Zo=C3=AB_M=C3=BCller?= <zoe@example.net>
Date: Mon, 23 Nov 2026 09:59:58 +0100
Message-ID: <CAF+x@mail.example.net>
Subject: =?UTF-8?B?UmU6IFlvdXIgb3JkZXIg4pyJ?=
To: Shop <shop@example.com>, "Doe, Jane" <jane@example.com>
Cc: Zoe <zoe@example.net>
Content-Type: multipart/mixed; boundary="0001"

--0001
Content-Type: multipart/alternative; boundary="0002"

--0002
Content-Type: text/plain; charset="UTF-8"
Content-Transfer-Encoding: quoted-printable

Where is it? =E2=9C=89

--0002
Content-Type: text/html; charset="UTF-8"

<p>Where is it?</p>

--0002--
--0001
Content-Type: image/png; name="=?UTF-8?Q?caf=C3=A9.png?="
Content-Disposition: attachment; filename="=?UTF-8?Q?caf=C3=A9.png?="
Content-Transfer-Encoding: base64
Content-ID: <ii_1>

iVBORw0KGgo=
--0001--
"""


def read(text: str) -> ParsedMail:
    return mail.parse(text.replace("\n", "\r\n").encode())


def test_a_reply_is_read_with_all_that_belongs_to_it() -> None:
    found = read(GMAIL)
    assert found.problem is None
    assert (found.subject, found.sender) == ("Re: Your order ✉", "zoe@example.net")
    assert found.text.strip() == "Where is it? ✉"
    assert found.html is not None
    assert found.html.strip() == "<p>Where is it?</p>"
    assert found.message_id == "<CAF+x@mail.example.net>"
    assert found.in_reply_to == "<second@example.com>"
    assert found.references == ["<first@example.com>", "<second@example.com>"]
    assert found.sent_at == datetime(2026, 11, 23, 8, 59, 58, tzinfo=UTC)
    assert found.mailboxes["from"] == ["Zoë Müller <zoe@example.net>"]
    assert found.mailboxes["to"] == ["Shop <shop@example.com>", "Doe, Jane <jane@example.com>"]
    assert found.recipients == [
        ("to", "shop@example.com"),
        ("to", "jane@example.com"),
        ("cc", "zoe@example.net"),
    ]
    assert found.headers["authentication-results"] == "mx.example.com; spf=pass"
    (file,) = found.files
    assert (file.filename, file.content_type, file.content_id) == ("café.png", "image/png", "ii_1")
    assert file.content == b"\x89PNG\r\n\x1a\n"


def test_a_mail_of_html_alone_has_a_text_too() -> None:
    found = read(
        "From: a@x.example\nContent-Type: text/html\n\n<p>One "
        "<b>two</b></p><script>bad()</script><p>Three"
    )
    assert found.text == "One two\nThree"


def test_text_in_the_characters_of_another_age_is_read() -> None:
    head = "From: a@x.example\nContent-Type: text/plain; charset=iso-2022-jp\n\n"
    raw = head.encode() + "こんにちは".encode("iso-2022-jp")
    assert mail.parse(raw).text == "こんにちは"


def test_a_mail_within_a_mail_stays_closed_in_one_file() -> None:
    found = read(
        "From: a@x.example\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\nSee below\n--B\n"
        "Content-Type: message/rfc822\n\nSubject: Inner / one\nContent-Type: multipart/mixed; "
        "boundary=C\n\n"
        "--C\nContent-Disposition: attachment; filename=secret.txt\n\nx\n--C--\n--B--\n"
    )
    assert found.text == "See below"
    assert [file.filename for file in found.files] == ["one.eml"]
    assert b"secret.txt" in found.files[0].content


# --- Character sets
# ----------------------------------------------------------------------------------

HEAD = b"From: ann@x.example\r\nSubject: Hi\r\n"
LIE = "its text is not in the character set it names"
GERMAN = "Grüße aus München – schön"
TEXTS: dict[str, tuple[str | None, bytes, str, str | None]] = {
    "one wrong byte": ("utf-8", GERMAN.encode() + b"\xff!", GERMAN + "\ufffd!", LIE),
    "a last character cut": ("utf-8", GERMAN.encode() + b"\xc3", GERMAN + "\ufffd", LIE),
    "UTF-8 that is none": ("utf-8", GERMAN.encode("cp1252"), GERMAN, LIE),
    "nothing named": (None, GERMAN.encode(), GERMAN, None),
    "ASCII that is UTF-8": ("us-ascii", GERMAN.encode(), GERMAN, None),
    "ASCII that is none": ("us-ascii", b"\x93Hi\x94 \x80", "“Hi” €", LIE),
    "Latin-1 as it is meant": ("iso-8859-1", b"\x93Hi\x94 \x80", "“Hi” €", None),
    "GB 2312 as it is meant": ("gb2312", "中文镕".encode("gb18030"), "中文镕", None),
    "Shift JIS as it is meant": ("shift_jis", "日本語①".encode("cp932"), "日本語①", None),
    "KS C 5601 as it is meant": ("ks_c_5601-1987", "똠방각".encode("cp949"), "똠방각", None),
    "one wrong byte of Japanese": (
        "shift_jis",
        "日本語①".encode("cp932") + b"\x81",
        "日本語①\ufffd",
        LIE,
    ),
    "Hebrew of Outlook": ("iso-8859-8-i", "שלום".encode("iso8859-8"), "שלום", None),
    "UTF-16 without its mark": ("utf-16", "Grüße".encode("utf-16-le"), "Grüße", None),
    "UTF-8 with a mark": ("utf-8", b"\xef\xbb\xbfHi", "Hi", None),
    "what breaks the codec": ("iso-2022-jp-2", b"\x1b.J\x1bNw\xff", "\x1b.J\x1bNwÿ", LIE),
    "what is packed": ("zlib", b"x\x9c\xcbH\x04\x00", "xœËH\x04\ufffd", LIE),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_read_as_its_writer_meant_it(name: str) -> None:
    charset, raw, text, problem = TEXTS[name]
    named = f"Content-Type: text/plain; charset={charset}\r\n\r\n".encode() if charset else b"\r\n"
    found = mail.parse(HEAD + named + raw)
    assert (found.text, found.problem) == (text, problem)


def test_a_text_that_is_cut_is_not_cut_within_a_character() -> None:
    raw = "中".encode() * 1_400_000
    found = mail.parse(HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + raw)
    assert found.text == "中" * LONGEST_TEXT
    assert found.problem == "its text is too long, and was cut"


@pytest.mark.parametrize("raw", ["Müller.pdf".encode(), "Müller.pdf".encode("cp1252")])
@pytest.mark.parametrize(
    "place", [b"Content-Disposition: attachment; file", b"Content-Type: image/png; "]
)
def test_a_files_name_is_read_that_nobody_encoded(place: bytes, raw: bytes) -> None:
    (file,) = mail.parse(HEAD + place + b'name="' + raw + b'"\r\n\r\nx').files
    assert file.filename == "Müller.pdf"


def test_what_joins_letters_stays_and_what_turns_them_goes() -> None:
    said = "👩\u200d💻 می\u200cخواهم 10\u00a0€"
    subject = f"{said}\u202e\u2066\u2028\x07!"
    found = mail.parse(f"From: {said} <ann@x.example>\r\nSubject: {subject}\r\n\r\nx".encode())
    assert found.subject == f"{said} !"
    assert found.mailboxes["from"] == [f"{said} <ann@x.example>"]
    assert tidy_filename("a\u202fb\u200d.png") == "a\u202fb\u200d.png"
    assert tidy_filename("\u200d\u00a0\u202e") == ""


def test_a_mail_within_a_mail_has_its_own_name_or_its_subject() -> None:
    part = "--B\nContent-Type: message/rfc822{}\n\nSubject: =?utf-8?q?caf=C3=A9?= 中\n\nHi\n"
    named = part.format('; name="kept.eml"')
    found = read(f"Content-Type: multipart/mixed; boundary=B\n\n{part.format('')}{named}--B--\n")
    assert [file.filename for file in found.files] == ["café 中.eml", "kept.eml"]


# --- Who wrote
# ---------------------------------------------------------------------------------------

LONG = f"bounce+{'a' * 80}@mg.example"


@pytest.mark.parametrize(
    ("written", "sender"),
    [
        ("root", "root"),
        (LONG, LONG),
        ('"john doe"@x.example', '"john doe"@x.example'),
        ('John <"john doe"@x.example>', '"john doe"@x.example'),
        ("Ann <a@[10.0.0.1]>", "a@[10.0.0.1]"),
        ("Ann at home", "Ann at home"),
    ],
)
def test_a_sender_that_cannot_be_answered_is_told_all_the_same(written: str, sender: str) -> None:
    found = read(f"From: {written}\nTo: shop@example.com\n\nHi")
    assert found.sender == sender
    assert found.problem == "its sender has no address that can be answered"
    assert found.mailboxes["from"]


def test_of_several_senders_one_that_can_be_answered_is_taken() -> None:
    found = read("From: root, Ann <ann@x.example>\nTo: root, shop@example.com\n\nHi")
    assert (found.sender, found.problem) == ("ann@x.example", None)
    assert found.recipients == [("to", "shop@example.com")]
    assert found.mailboxes["to"] == ["root", "shop@example.com"]


@pytest.mark.parametrize("length", [100, 918, 919, 920, 921, 922, 923, 990])
def test_every_name_of_a_mail_that_is_kept_can_be_answered_to(length: int) -> None:
    name = f"<{'A' * (length - 8)}@x.net>"
    found = read(f"From: ann@x.example\nMessage-ID: {name}\nReferences: <1@x.net> {name}\n\nHi")
    refs = [*found.references, *([found.message_id] if found.message_id else [])]
    reply = OutboundEmail(
        key="k",
        message_id="<k@example.com>",
        sender="shop@example.com",
        recipients=["ann@x.example"],
        subject="Re",
        body="Hi",
        in_reply_to=found.message_id,
        references=refs,
    )
    assert refs[0].encode() in compose(reply)
    assert (found.message_id is not None) == (length < 923)


# --- What comes back
# ---------------------------------------------------------------------------------

POSTFIX = """\
From: MAILER-DAEMON@mx.example.com (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: shop@example.com
Auto-Submitted: auto-replied
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: text/plain

I'm sorry to have to inform you that your message could not be delivered.
--B
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com

Final-Recipient: rfc822; bob@example.net
Original-Recipient: rfc822;bob@example.org
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <bob@example.net>:
    Recipient address rejected: User unknown

Final-Recipient: rfc822; eve@example.net
Action: delayed
Status: 4.4.1

--B
Content-Type: message/rfc822

From: shop@example.com
Message-ID: <uuid-1@example.com>
Subject: Your order

Hello
--B--
"""


def test_a_bounce_names_the_mail_and_who_was_not_reached() -> None:
    found = read(POSTFIX)
    assert found.bounce is not None
    assert found.bounce.message_id == "<uuid-1@example.com>"
    assert found.bounce.recipients == [
        RecipientReport(
            "bob@example.org",
            "failed",
            "5.1.1",
            "550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown",
        ),
        RecipientReport("eve@example.net", "delayed", "4.4.1", None),
    ]
    assert "could not be delivered" in found.text
    assert "Status: 5.1.1" in found.text


def test_a_bounce_with_nothing_but_the_headers_of_the_mail_is_understood() -> None:
    text = POSTFIX.replace("message/rfc822\n\nFrom", "text/rfc822-headers\n\nFrom").replace(
        "\n\nHello", ""
    )
    found = read(text)
    assert found.bounce is not None
    assert found.bounce.message_id == "<uuid-1@example.com>"


@pytest.mark.parametrize("kind", ["message/global", "message/global-headers"])
def test_a_bounce_of_a_mail_beyond_ascii_is_understood(kind: str) -> None:
    found = read(POSTFIX.replace("Content-Type: message/rfc822", f"Content-Type: {kind}"))
    assert found.bounce is not None
    assert found.bounce.message_id == "<uuid-1@example.com>"


def test_a_bounce_that_returns_nothing_names_no_mail() -> None:
    head, _, _ = POSTFIX.partition("--B\nContent-Type: message/rfc822")
    found = read(f"In-Reply-To: <uuid-1@example.com>\n{head}--B--\n")
    assert found.bounce is not None
    assert found.bounce.message_id is None


def test_a_header_that_names_who_was_not_reached_is_no_report() -> None:
    found = read(
        "From: Mailer-Daemon@x.example\nX-Failed-Recipients: bob@example.net\nTo: "
        "shop@example.com\n"
        "In-Reply-To: <uuid-1@example.com>\nSubject: Mail delivery failed\n\nIt did not arrive."
    )
    assert found.bounce is None


def test_neither_a_reply_nor_a_read_receipt_is_a_bounce() -> None:
    assert read(GMAIL).bounce is None
    receipt = POSTFIX.replace("delivery-status", "disposition-notification")
    assert read(receipt).bounce is None


# --- Hostile mails
# -----------------------------------------------------------------------------------


def strings(found: object) -> Iterator[str]:
    if isinstance(found, str):
        yield found
    elif isinstance(found, dict):
        for name, value in found.items():
            yield from (*strings(name), *strings(value))
    elif isinstance(found, list | tuple):
        for one in found:
            yield from strings(one)
    elif dataclasses.is_dataclass(found):
        for one in dataclasses.fields(found):
            yield from strings(getattr(found, one.name))


def assert_storable(found: ParsedMail) -> None:
    for text in strings(found):
        assert "\0" not in text
        text.encode("utf-8")
    headers = [found.subject, found.message_id or "", found.in_reply_to or "", *found.references]
    headers += [
        *found.headers.values(),
        *(one for many in found.mailboxes.values() for one in many),
    ]
    assert max(map(len, headers)) <= 998
    assert "\n" not in "".join(headers)
    assert len(found.text) <= LONGEST_TEXT
    assert len(found.html or "") <= LONGEST_TEXT
    assert len(found.problem or "") <= 500
    assert len(found.files) <= mail.MOST_FILES
    assert len(found.recipients) <= mail.MOST_PEOPLE
    assert all(
        len(address) <= 254 for address in (found.sender, *(one for _, one in found.recipients))
    )
    for file in found.files:
        assert 0 < len(file.filename) <= 255
        assert not set(file.filename) & {"/", "\\", "\r", "\n"}
        assert file.filename not in (".", "..")
        assert len(file.content_type) <= 127
        assert len(file.content_id or "") <= 255


def test_the_corpus_has_two_hundred_kinds_and_more() -> None:
    assert len(CORPUS) >= 200


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_mail_is_read_in_time_and_can_be_stored(name: str) -> None:
    begun = time.process_time()
    found = mail.parse(CORPUS[name])
    assert time.process_time() - begun < 2
    assert "could not be read (" not in (found.problem or "")
    assert_storable(found)


def test_a_mail_that_is_large_takes_little_more_than_itself() -> None:
    bomb = CORPUS["a zip bomb"] + b"x" * 20_000_000
    tracemalloc.start()
    mail.parse(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * len(bomb)


def test_mails_that_were_damaged_at_random_are_read() -> None:
    print(f"seed {SEED}")
    count = 0
    for raw in mutations(SEED, 2000):
        assert_storable(mail.parse(raw))
        count += 1
    assert count == 2000


# What a person sees of them: problem, beginning of the text, names of the files.
SEEN = {
    "nothing": ("it is empty", "", []),
    "no headers": ("it has no headers", "Hello", []),
    "no body": (None, "", []),
    "line ends of an old Macintosh": (None, "Hello", []),
    "line ends of Unix": (None, "Hello", []),
    "a mailbox's From line": (None, "Hello", []),
    "150 nested parts": (None, "The end", []),
    "1000 nested parts": ("it has too many nested parts, so only its headers were read", "", []),
    "20,000 nested parts": ("it has too many nested parts, so only its headers were read", "", []),
    "10 mails within mails": (None, "", ["message-1.eml"]),
    "20000 mails within mails": (
        "its parts are nested too deeply, so only its headers were read",
        "",
        [],
    ),
    "no boundary": ("its parts are not where it says", "Hello", []),
    "a boundary that never comes": ("its parts are not where it says", "Hello", []),
    "a boundary that never ends": (None, "See the file.", []),
    "10,000 headers": (None, "Hello", []),
    "100 subjects": (None, "Hello", []),
    "a text in 'x-klingon'": ("its text is not in the character set it names", "héllo ÿ", []),
    "a text in 'punycode'": ("its text is not in the character set it names", "héllo ÿ", []),
    "a text in 'zlib_codec'": ("its text is not in the character set it names", "héllo ÿ", []),
    "a text in 'cp1252'": (None, "héllo ÿ", []),
    "a text of zeros": (None, "\ufffd", []),
    "a text of a million empty lines": (
        "it has too many lines, so only its headers were read",
        "",
        [],
    ),
    "a text of 5 MB on one line": ("its text is too long, and was cut", "xxx", []),
    "HTML of deep blocks": ("its HTML is nested too deeply to be shown", "", []),
    "HTML of ampersands": ("its HTML is nested too deeply to be shown", "", []),
    "HTML of a script": (None, "Hello", []),
    "a file named a path upwards, plainly": (None, "See the file.", ["passwd"]),
    "a file named a path of windows, plainly": (None, "See the file.", ["cmd.exe"]),
    "a file named an absolute path, by RFC 2231": (None, "See the file.", ["shadow"]),
    "a file named dots, plainly": (None, "See the file.", ["part-2.pdf"]),
    "a file named a turned end, by RFC 2231": (None, "See the file.", ["invoicegpj.exe"]),
    "a file named a bell, plainly": (None, "See the file.", ["ring .txt"]),
    "a file named an encoded path, plainly": (None, "See the file.", ["passwd"]),
    "a file named an encoded line, plainly": (None, "See the file.", ["a b.txt"]),
    "a file named no such charset, plainly": (None, "See the file.", ["aÿb.txt"]),
    "a zip bomb": (None, "See the file.", ["it.zip"]),
    "winmail.dat": (None, "See the file.", ["it.zip"]),
    "6,000 parts": ("it has too many parts, so only its headers were read", "", []),
    "a report of a lie": (None, "Reporting-MTA", []),
    "a date of 1 Jan 99999 00:00": (None, "Hello", []),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_person_sees_what_could_be_read_of_a_hostile_mail(name: str) -> None:
    problem, text, files = SEEN[name]
    found = mail.parse(CORPUS[name])
    assert found.problem == problem
    assert found.text.startswith(text) if text else not found.text.strip()
    assert [file.filename for file in found.files] == files


def test_more_files_than_a_mail_may_have_are_named_as_a_problem() -> None:
    found = mail.parse(CORPUS["300 files"])
    assert len(found.files) == mail.MOST_FILES
    assert found.problem == "it has more than 200 files; the others are in the raw mail"


def test_a_bomb_stays_closed() -> None:
    (file,) = mail.parse(CORPUS["a zip bomb"]).files
    assert len(file.content) < 100_000


def test_the_text_of_html_has_its_lines_and_links() -> None:
    assert (
        text_of('<h1>Hi</h1><p>See <a href="https://x.example">this</a>')
        == "Hi\nSee this (https://x.example)"
    )
