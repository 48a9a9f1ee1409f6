"""Mails that nobody should have written: a corpus of some hundred kinds, each made by hand or by
rule.
"""

from __future__ import annotations

import base64
import gzip
import io
import random
import zipfile
from collections.abc import Iterator
from functools import cache

HEAD = b"From: Mallory <mallory@evil.example>\r\nTo: us@shop.example\r\nSubject: Hello\r\n"
MIME = HEAD + b"MIME-Version: 1.0\r\n"
# Names and bytes of a file name, a header, a character set that are no such thing.
NAMES = {
    "a path upwards": "../../../../etc/passwd",
    "a path of windows": "C:\\Windows\\System32\\cmd.exe",
    "an absolute path": "/etc/shadow",
    "a device": "CON",
    "dots": "..",
    "a dot file": ".bashrc",
    "300 characters": "x" * 300 + ".pdf",
    "a turned end": "invoice\u202egpj.exe",
    "nothing": "",
    "spaces": "   ",
    "a line break": "a\r\nContent-Type: text/html\r\n.txt",
    "a bell": "ring\x07.txt",
    "html": "<script>alert(1)</script>.html",
    "quotes": "a\"b'c;d=e.txt",
    "a percent": "%2e%2e%2fetc%2fpasswd",
    "a zero": "a.php\x00.jpg",
    "an encoded path": "=?utf-8?q?..=2F..=2Fetc=2Fpasswd?=",
    "an encoded zero": "=?utf-8?q?a=00b.txt?=",
    "an encoded line": "=?utf-8?q?a=0D=0Ab.txt?=",
    "no such charset": "=?x-klingon?q?a=FFb.txt?=",
}
CHARSETS = [
    "x-klingon",
    "",
    "utf-8; drop table",
    "utf-16",
    "utf-32",
    "utf-7",
    "punycode",
    "idna",
    "zlib_codec",
    "hex",
    "rot13",
    "unicode_escape",
    "base64",
    "us-ascii",
    "cp1252",
    "iso-2022-jp",
    "gb18030",
    "undefined",
    "a" * 1000,
    "../../etc/passwd",
    "utf-8\x00",
    "=?utf-8?q?utf-8?=",
]
ENCODINGS = [
    "base64",
    "quoted-printable",
    "x-uuencode",
    "8bit",
    "binary",
    "7bit",
    "gzip",
    "",
    "base64; x",
    "BASE64",
]
VALUES = {
    "a megabyte": b"x" * 1_000_000,
    "a megabyte of encoded words": b"=?utf-8?q?x?= " * 70_000,
    "an endless encoded word": b"=?utf-8?b?" + b"QUFB" * 20_000,
    "an encoded word of nothing": b"=?utf-8?q??=",
    "an encoded word of punycode": b"=?punycode?q?" + b"a-" * 20_000 + b"?=",
    "an encoded zero": b"=?utf-8?q?a=00b?=",
    "an encoded surrogate": b"=?utf-8?b?7aCA?=",
    "an encoded line": b"=?utf-8?q?a=0D=0ABcc:_b@x.example?=",
    "bad base64": b"=?utf-8?b?!!!!?=",
    "8 bit": "h\xe9llo \xff\xfe".encode("latin-1"),
    "utf-8": "héllo ✉".encode(),
    "zeros": b"a\x00b\x00c",
    "controls": bytes(range(1, 32)).replace(b"\r", b"").replace(b"\n", b""),
    "comments": b"(" * 50_000,
    "quotes": b'"' * 50_001,
    "backslashes": b"\\" * 50_000,
    "commas": b"," * 50_000,
    "addresses": b", ".join(b"a%d@x.example" % n for n in range(20_000)),
    "angles": b"<" * 50_000,
    "a long name": b"n" * 300 + b" <a@x.example>",
    "groups": b"undisclosed: a@x.example, b@x.example;" * 1000,
    "routes": b"<@a,@b:c@d.example>",
    "ats": b"a@" * 30_000 + b"b",
    "folds": b"\r\n x" * 20_000,
    "nothing": b"",
    "percents": b"%s%n%x" * 1000,
}


def header(name: str, value: bytes) -> bytes:
    return name.encode() + b": " + value + b"\r\n"


def part(headers: bytes, body: bytes) -> bytes:
    return b"--B\r\n" + headers + b"\r\n" + body + b"\r\n"


def mixed(*parts: bytes) -> bytes:
    head = MIME + b"Content-Type: multipart/mixed; boundary=B\r\n\r\n"
    return (
        head
        + part(b"Content-Type: text/plain\r\n", b"See the file.")
        + b"".join(parts)
        + b"--B--\r\n"
    )


def nested(depth: int, kind: str = "mixed") -> bytes:
    lines = [MIME + b"Content-Type: multipart/%s; boundary=b0\r\n\r\n" % kind.encode()]
    lines += [
        b"--b%d\r\nContent-Type: multipart/%s; boundary=b%d\r\n\r\n" % (n, kind.encode(), n + 1)
        for n in range(depth)
    ]
    return b"".join(lines) + b"--b%d\r\n\r\nThe end\r\n" % depth


def within(depth: int) -> bytes:
    return HEAD + b"Content-Type: message/rfc822\r\n\r\n" * depth + b"Subject: inner\r\n\r\nHello"


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 20_000_000)
    return packed.getvalue()


def file_named(name: str) -> Iterator[tuple[str, bytes]]:
    raw = name.encode("utf-8", "surrogateescape")
    quoted = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    plain = (
        b'Content-Type: application/pdf\r\nContent-Disposition: attachment; filename="'
        + quoted
        + b'"\r\n'
    )
    yield "plainly", mixed(part(plain, b"%PDF"))
    extended = b"".join(b"%%%02x" % sign for sign in raw)
    coded = b"Content-Disposition: attachment; filename*=utf-8''" + extended + b"\r\n"
    yield "by RFC 2231", mixed(part(coded, b"%PDF"))


def _files() -> Iterator[tuple[str, bytes]]:
    for about, name in NAMES.items():
        for how, raw in file_named(name):
            yield f"a file named {about}, {how}", raw
    lying = b"Content-Disposition: attachment; filename*=x-klingon''%ff%fe.txt\r\n"
    yield "a file's name in no character set", mixed(part(lying, b"x"))
    pieces = b"".join(b"; filename*%d=part%d" % (n, n) for n in range(500))
    yield (
        "a file's name in 500 pieces",
        mixed(part(b"Content-Disposition: attachment" + pieces + b"\r\n", b"x")),
    )
    gap = b'Content-Disposition: attachment; filename*0="a"; filename*2="c"\r\n'
    yield "a file's name with a gap", mixed(part(gap, b"x"))
    for about, content in {
        "a zip bomb": zip_bomb(),
        "a gzip bomb": gzip.compress(b"\0" * 20_000_000),
        "a virus' test": rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$"
        + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*",
        "winmail.dat": b"\x78\x9f\x3e\x22" + b"\0" * 100,
    }.items():
        coded = b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n"
        named = b'Content-Disposition: attachment; filename="it.zip"\r\n'
        yield about, mixed(part(coded + named, base64.encodebytes(content)))
    many = part(b'Content-Disposition: attachment; filename="a.txt"\r\n', b"x")
    yield "300 files", mixed(*[many] * 300)
    yield "6,000 parts", mixed(*[many] * 6000)
    for kind in (
        "text/plain; x",
        "text",
        "/",
        "a/b/c",
        "x" * 300 + "/y",
        "text/\xe9",
        "APPLICATION/PDF",
        "text/html;;;=",
    ):
        kind_head = (
            b"Content-Type: "
            + kind.encode()
            + b'\r\nContent-Disposition: attachment; filename="a"\r\n'
        )
        yield f"a file of type {kind[:20]!r}", mixed(part(kind_head, b"x"))


def _words() -> Iterator[tuple[str, bytes]]:
    for charset in CHARSETS:
        typed = b'Content-Type: text/plain; charset="' + charset.encode() + b'"\r\n\r\n'
        yield (
            f"a text in {charset[:20]!r}",
            MIME + typed + "h\xe9llo \xff".encode("latin-1") + "✉".encode(),
        )
    for encoding in ENCODINGS:
        coded = b"Content-Transfer-Encoding: " + encoding.encode() + b"\r\n\r\n"
        yield f"a text coded by {encoding!r}", MIME + coded + b"=FF=3D!!! \xff begin 666 x\r\n"
    typed = b"Content-Type: text/html\r\n\r\n"
    for about, html in {
        "deep tables": b"<table><tr><td>" * 50_000,
        "deep blocks": b"<div>" * 100_000,
        "deep lists": b"<ul><li>" * 50_000,
        "comments": b"<!--" * 200_000,
        "broken tags": b"<a <a " * 100_000,
        "ampersands": b"&" * 500_000,
        "an endless attribute": b'<a href="' + b"x" * 500_000,
        "a script": b"<script>alert(1)</script><p>Hello</p>",
        "zeros": b"<p>a\x00b</p>",
        "a declaration": b"<!DOCTYPE x [<!ENTITY a 'b'>]>&a;",
        "marked sections": b"<![" * 100_000,
    }.items():
        yield f"HTML of {about}", MIME + typed + html
    yield "a text of 5 MB on one line", MIME + b"\r\n" + b"x" * 5_000_000
    yield "a text of a million empty lines", MIME + b"\r\n" + b"\n" * 1_000_000
    yield "a text of zeros", MIME + b"\r\n" + b"\0" * 10_000


def _headers() -> Iterator[tuple[str, bytes]]:
    for name in ("Subject", "From", "To", "Date", "Message-ID", "References"):
        for about, value in VALUES.items():
            yield (
                f"{name}: {about}",
                header(name, value) + header("X-Other", b"kept") + b"\r\nHello\r\n",
            )
    yield (
        "10,000 headers",
        b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + HEAD + b"\r\nHello",
    )
    yield "100 subjects", HEAD + b"Subject: again\r\n" * 100 + b"\r\nHello"
    for date in (
        "Mon, 99 Foo 2020 25:61:61 +9999",
        "1 Jan 0000",
        "1 Jan 99999 00:00",
        "now",
        "-1",
        "1 Jan 2020 00:00 -2400",
    ):
        yield f"a date of {date}", header("Date", date.encode()) + HEAD + b"\r\nHello"


def _shapes() -> Iterator[tuple[str, bytes]]:
    yield "nothing", b""
    yield "white space", b"\r\n \r\n\t"
    yield "only a line break", b"\r\n"
    yield "no headers", b"\r\nHello"
    yield "no body", HEAD
    yield "half a header", b"Subje"
    yield "line ends of an old Macintosh", (HEAD + b"\r\nHello").replace(b"\r\n", b"\r")
    yield "line ends of Unix", (HEAD + b"\r\nHello").replace(b"\r\n", b"\n")
    yield (
        "a mailbox's From line",
        b"From mallory@evil.example Mon Jan  1 00:00:00 2020\n" + HEAD + b"\r\nHello",
    )
    yield "random bytes", random.Random(1).randbytes(10_000)
    yield "a picture", b"\x89PNG\r\n\x1a\n" + random.Random(2).randbytes(10_000)
    yield "zeros", b"\0" * 10_000
    yield "a line of 1 MB", b"x" * 1_000_000
    for depth in (50, 150, 1000):
        yield f"{depth} nested parts", nested(depth)
    yield "1,000 nested alternatives", nested(1000, "alternative")
    yield "20,000 nested parts", nested(20_000)
    for depth in (10, 1000, 20_000):
        yield f"{depth} mails within mails", within(depth)
    yield (
        "a boundary that is nothing",
        MIME + b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nHello\r\n--',
    )
    yield "no boundary", MIME + b"Content-Type: multipart/mixed\r\n\r\nHello"
    yield (
        "a boundary that never comes",
        MIME + b"Content-Type: multipart/mixed; boundary=B\r\n\r\nHello",
    )
    yield "a boundary that never ends", mixed()[:-8]
    long = b"b" * 5000
    yield (
        "a boundary of 5,000 signs",
        MIME + b"Content-Type: multipart/mixed; boundary=" + long + b"\r\n\r\n--" + long,
    )
    yield (
        "a digest of nothing",
        MIME + b"Content-Type: multipart/digest; boundary=B\r\n\r\n--B\r\n\r\n--B--",
    )
    yield (
        "a message that is external",
        mixed(part(b"Content-Type: message/external-body; access-type=local-file\r\n", b"")),
    )
    yield (
        "a message that is partial",
        mixed(part(b"Content-Type: message/partial; number=1; total=9\r\n", b"x")),
    )
    report = b"Content-Type: multipart/report; report-type=delivery-status; boundary=B\r\n\r\n"
    status = b"Content-Type: message/delivery-status\r\n"
    for about, said in {
        "of nothing": b"",
        "of nobody": b"Reporting-MTA: dns; x\r\n\r\nAction: failed\r\n",
        "of 5,000": b"Reporting-MTA: dns; x\r\n\r\n"
        + b"Final-Recipient: rfc822; a@x.example\r\nAction: failed\r\n\r\n" * 5000,
        "of zeros": b"\0" * 1000,
        "of a lie": b"Reporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; <script>\r\n"
        b"Action: exploded\r\nStatus: 9.9.9\r\n",
    }.items():
        yield f"a report {about}", MIME + report + part(status, said) + b"--B--\r\n"


@cache
def corpus() -> list[tuple[str, bytes]]:
    """Return all of them, by name."""
    made = [*_shapes(), *_headers(), *_words(), *_files()]
    assert len({name for name, _ in made}) == len(made)
    return made


def mutations(seed: int, count: int) -> Iterator[bytes]:
    """Yield mails of the corpus with bytes flipped, cut, doubled and swapped."""
    chance = random.Random(seed)
    small = [raw for _, raw in corpus() if 20 < len(raw) < 20_000]
    for _ in range(count):
        raw = bytearray(chance.choice(small))
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(raw) + 1)
            to = min(len(raw), at + chance.randint(0, 60))
            new = chance.choice(
                [
                    b"",
                    raw[at:to] * 2,
                    chance.randbytes(3),
                    b"\r\n",
                    b"\0",
                    b"--B\r\n",
                    b"=?utf-8?q?",
                ]
            )
            raw[at:to] = new
        yield bytes(raw)
