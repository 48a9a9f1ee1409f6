"""Write an email as bytes: RFC 5322 headers, RFC 2045 parts, CRLF, 7-bit.

The standard library's serialiser re-parses and re-folds every header and walks every line of every
part; of a message whose few headers and parts are all ours, it is the slowest step of sending. So
the parts are put together here. The result is plain ASCII whatever the text (an 8-bit relay is
never needed), with one exception that RFC 6532 demands: an address that is not ASCII itself.
"""

from __future__ import annotations

import binascii
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple
from urllib.parse import quote

from ...errors import Refused
from ...formats.addresses import (
    LONGEST_WORD,
    is_address,
    is_free_header,
    is_message_id,
    with_ascii_domain,
)
from ...formats.files import is_content_id, is_content_type
from ..base import File, OutboundEmail

# Lines should have at most 78 characters (RFC 5322 §2.1.1) and must not have more than 998.
_FOLD_AT = 78
# RFC 2047 §2: an encoded word has at most 75 characters; 45 bytes are 60 of base64 and 12 around.
_WORD_BYTES = 45
# ... and the line it stands on 76; one that has room for less is left to the header's name.
_ENCODED_LINE = 76
_LEAST_WORD = 12
_FOLD = "\r\n "
_LONGEST_HEAD = len("Reply-To: ")
# What some program somewhere takes for the end of a line, or of a string.
_BREAKS = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")
_MAILBOX = re.compile(r"(?P<name>.*?)\s*<(?P<spec>[^<>]*)>\Z", re.DOTALL)
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")
_PLAIN_FILENAME = re.compile(r"[ !#-\[\]-~]{1,60}\Z")
_PLAIN_BYTES = bytes([9, 10, 13, *range(32, 127)])


class _Part(NamedTuple):
    """The header lines of a part, each with its CRLF, and what follows the empty line."""

    head: bytes
    body: bytes


def compose(email: OutboundEmail, *, plain: bool = False) -> bytes:
    """Return the message as it is sent, without the recipients in Bcc.

    The bytes are ASCII unless an address in a header is not: then the server needs SMTPUTF8 (RFC
    6531). With ``plain`` they always are, and such recipients are shown without an address (RFC
    6857).

    Raises :class:`Refused` for a value that could be read as another header or another line,
    whatever was checked before, and with ``plain`` for a sender or reply-to that is not ASCII.
    """
    try:
        if plain:
            _refuse_unspeakable("the sender", [email.sender])
            _refuse_unspeakable("the reply-to", email.reply_to)
        part = _whole(email)
        head = "".join(f"{line}\r\n" for line in _headers(email, plain=plain))
        return b"".join((head.encode(), part.head, b"\r\n", part.body))
    except UnicodeEncodeError:
        raise Refused(
            "the email has half a character (a lone surrogate); send valid Unicode"
        ) from None


def address_of(mailbox: str) -> str:
    """Return the bare address of "Ann <ann@x.example>"; raise :class:`Refused` if there is none."""
    return _split(mailbox)[1]


def _refuse_unspeakable(what: str, mailboxes: Sequence[str]) -> None:
    for one in map(address_of, mailboxes):
        if not one.isascii():
            raise Refused(
                f"{what}, {one}, is not ASCII before the @, and the server does not offer "
                "SMTPUTF8; write another address",
                code="5.6.7",
            )


def _headers(email: OutboundEmail, *, plain: bool) -> Iterator[str]:
    yield _addresses("From", [email.sender])
    yield _addresses("To", email.to, plain=plain)
    if email.cc:
        yield _addresses("Cc", email.cc, plain=plain)
    if email.reply_to:
        yield _addresses("Reply-To", email.reply_to)
    yield _text_header("Subject", email.subject)
    yield f"Date: {format_datetime(datetime.now(UTC))}"
    yield _ids("Message-ID", [email.message_id])
    yield from _relation("In-Reply-To", [email.in_reply_to] if email.in_reply_to else [])
    yield from _relation("References", email.references)
    for name, value in email.headers.items():
        yield _extra(name, value)
    yield "MIME-Version: 1.0"


def _extra(name: str, value: str) -> str:
    if not is_free_header(name):
        raise Refused(
            f"the header {name[:80]!r} cannot be set: its name is not allowed, or it is made by us"
        )
    if value.isascii() and max(map(len, value.split(" "))) > LONGEST_WORD:
        raise Refused(
            f"the header {name} has a word of more than {LONGEST_WORD} characters; shorten it"
        )
    return _text_header(name, value)


def _text_header(name: str, value: str) -> str:
    _refuse_breaks(name, value)
    if value.isascii() and "=?" not in value and "\t" not in value:
        if len(name) + 2 + len(value) <= _FOLD_AT:
            return f"{name}: {value}"
        words = value.split(" ")
        # Two spaces in a row could end up as an empty line, which is where headers end.
        if "" not in words and max(map(len, words)) <= LONGEST_WORD:
            return _folded(f"{name}:", words)
    return f"{name}: {_encoded(value, len(name) + 2)}"


def _folded(name: str, words: Iterable[str]) -> str:
    lines = [name]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > _FOLD_AT and lines[-1] != name:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines)


def _encoded(text: str, taken: int) -> str:
    """Return RFC 2047 encoded words; white space between two of them does not count.

    ``taken`` characters stand before them on the first line.
    """
    data = text.encode()
    room = (_ENCODED_LINE - taken - 12) // 4 * 3
    words = [] if room >= _LEAST_WORD else [""]
    start = 0
    while start < len(data):
        end = min(start + (_WORD_BYTES if words else min(room, _WORD_BYTES)), len(data))
        # A character of several bytes must not be cut in two (§5).
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        words.append(f"=?utf-8?b?{_line64(data[start:end])}?=")
        start = end
    return _FOLD.join(words)


def _ids(name: str, ids: Sequence[str]) -> str:
    for one in ids:
        if not is_message_id(one):
            raise Refused(
                f"{name} is no message id: {one[:80]!r}; it looks like <words@domain>, in ASCII"
            )
    return _folded(f"{name}:", ids)


def _relation(name: str, ids: Sequence[str]) -> Iterator[str]:
    for one in ids:
        _refuse_breaks(name, one)
    # What a stranger's program made up may not be ASCII; a reply goes out all the same.
    written = [one for one in ids if one.isascii()]
    if written:
        yield _ids(name, written)


def _addresses(name: str, mailboxes: Sequence[str], *, plain: bool = False) -> str:
    if not mailboxes:
        # Filters distrust a mail that is to nobody.
        return f"{name}: undisclosed-recipients:;"
    shown = [_shown(*_split(one), plain=plain) for one in mailboxes]
    short = len(name) + sum(map(len, shown)) + 2 * len(shown) <= _FOLD_AT
    return f"{name}: " + (", " if short else ",\r\n ").join(shown)


def _split(mailbox: str) -> tuple[str, str]:
    _refuse_breaks("an address", mailbox)
    found = _MAILBOX.match(mailbox.strip())
    name, spec = (found["name"].strip(), found["spec"]) if found else ("", mailbox.strip())
    try:
        spec = with_ascii_domain(spec)
    except ValueError:
        raise Refused(f"{mailbox[:80]!r} has a domain that cannot be; correct it") from None
    if not is_address(spec):
        raise Refused(
            f"{mailbox[:80]!r} is no address; write ann@example.com or Ann <ann@example.com>"
        )
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return name, spec


def _shown(name: str, spec: str, *, plain: bool) -> str:
    if plain and not spec.isascii():
        return f"{_encoded(f'{name} {spec}'.strip(), _LONGEST_HEAD)} :;"
    if not name:
        return spec
    if not name.isascii() or "=?" in name or "\t" in name or len(name) > 60:
        encoded = _encoded(name, _LONGEST_HEAD)
        fits = len(encoded.rpartition("\n")[2]) + len(spec) + 3 <= _ENCODED_LINE - _LONGEST_HEAD
        return f"{encoded}{' ' if fits else _FOLD}<{spec}>"
    if _ATOMS.match(name):
        return f"{name} <{spec}>"
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{spec}>'


def _refuse_breaks(what: str, value: str) -> None:
    found = _BREAKS.search(value)
    if found is not None:
        raise Refused(
            f"{what} has the control character U+{ord(found[0]):04X}, which could begin another "
            "header; remove it"
        )


def _whole(email: OutboundEmail) -> _Part:
    """Nest the parts as in RFC 2046 §5.1 and RFC 2387.

    That is mixed(alternative(text, related(html, …)), …).
    """
    shows = email.html is not None
    inline = [file for file in email.files if shows and file.content_id]
    attached = [file for file in email.files if not (shows and file.content_id)]
    part = None if email.html is None else _text("html", email.html)
    if part is not None and inline:
        part = _multipart(
            'related; type="text/html"', [part, *(_file(one, "inline") for one in inline)]
        )
    if part is None:
        part = _text("plain", email.body)
    elif email.body:
        part = _multipart("alternative", [_text("plain", email.body), part])
    if not attached:
        return part
    return _multipart("mixed", [part, *(_file(one, "attachment") for one in attached)])


def _multipart(subtype: str, parts: Sequence[_Part]) -> _Part:
    # "=_" can stand in no quoted-printable and no base64 (RFC 2045 §6.7), and nobody can guess the
    # rest.
    boundary = f"=_{secrets.token_hex(12)}"
    line = f"--{boundary}\r\n".encode()
    pieces: list[bytes] = []
    for part in parts:
        pieces += (line, part.head, b"\r\n", part.body, b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    kind, _, more = subtype.partition("; ")
    parameters = f'{more}; boundary="{boundary}"' if more else f'boundary="{boundary}"'
    return _Part(f"Content-Type: multipart/{kind};\r\n {parameters}\r\n".encode(), b"".join(pieces))


def _text(subtype: str, text: str) -> _Part:
    encoding, body = _transfer(_crlf(text).encode())
    return _Part(
        f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: "
        f"{encoding}\r\n".encode(),
        body,
    )


def _crlf(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (text if text.endswith("\n") else f"{text}\n").replace("\n", "\r\n")


def _transfer(data: bytes) -> tuple[str, bytes]:
    """Choose the transfer encoding that leaves the most readable, and apply it."""
    if not data.translate(None, _PLAIN_BYTES) and max(map(len, data.split(b"\r\n"))) <= 998:
        return "7bit", data
    quoted = binascii.b2a_qp(data, istext=True)
    if 3 * len(quoted) <= 4 * len(data):
        return "quoted-printable", quoted
    return "base64", _base64(data)


def _file(file: File, disposition: str) -> _Part:
    head = f"Content-Type: {_type(file.content_type)}\r\nContent-Transfer-Encoding: base64\r\n"
    head += f"Content-Disposition: {disposition}{_filename(file.filename)}\r\n"
    if file.content_id:
        if not is_content_id(file.content_id):
            raise Refused(
                f"{file.content_id[:80]!r} is no content id; write ASCII without spaces and <>"
            )
        head += f"Content-ID: <{file.content_id}>\r\n"
    return _Part(head.encode(), _base64(file.content))


def _type(content_type: str) -> str:
    if not is_content_type(content_type):
        raise Refused(
            f"{content_type[:80]!r} is no content type; write one such as application/pdf"
        )
    # RFC 2046 §5.2.1: these must not be base64, and nothing else carries all bytes unchanged.
    nested = content_type.lower().startswith(("message/", "multipart/"))
    return "application/octet-stream" if nested else content_type


def _filename(name: str) -> str:
    _refuse_breaks("a file name", name)
    if not name or _PLAIN_FILENAME.match(name):
        return f'; filename="{name}"' if name else ""
    pieces = list(_percent(name))
    if len(pieces) == 1:
        return f";\r\n filename*=utf-8''{pieces[0]}"
    # Only the first says the character set.
    pieces[0] = f"utf-8''{pieces[0]}"
    return "".join(f";\r\n filename*{number}*={piece}" for number, piece in enumerate(pieces))


def _percent(name: str) -> Iterator[str]:
    """Percent-encode (RFC 2231 §4), in pieces that fit a line and cut no character (§3)."""
    piece = ""
    for char in (quote(one, safe="") for one in name):
        if len(piece) + len(char) > 50:
            yield piece
            piece = ""
        piece += char
    yield piece


def _base64(data: bytes) -> bytes:
    encoded = binascii.b2a_base64(data, newline=False)
    lines = [encoded[start : start + 76] for start in range(0, len(encoded), 76)]
    lines.append(b"")
    return b"\r\n".join(lines)


def _line64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()
