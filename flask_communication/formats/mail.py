"""Incoming mail, read without ever raising."""

from __future__ import annotations

import email
import email.utils
import logging
import mimetypes
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesHeaderParser

from ..providers.base import File
from . import bounces
from . import html as markup
from . import text as charsets
from .addresses import is_address
from .bounces import Bounce
from .text import LONGEST_HEADER, line, storable

log = logging.getLogger(__name__)

LONGEST_TEXT = 1_000_000
LONGEST_LINE = 998
LONGEST_NAME = 255
# RFC 5321 §4.5.3.1.3, erratum 1690.
LONGEST_ADDRESS = 254
MOST_FILES = 200
MOST_PEOPLE = 200
MOST_REFERENCES = 50
# The standard library's parser takes time with the square of these.
MOST_BOUNDARIES = 200
MOST_PARTS = 5_000
MOST_LINES = 600_000
_KEPT = (
    "return-path delivered-to authentication-results auto-submitted precedence list-id "
    "list-unsubscribe list-unsubscribe-post importance x-priority"
).split()
# A reply names it in a line of its own, of 998 octets at most; longer ones are nobody's.
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,920}>")
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
# Marks that turn the direction of what follows: "exe.gpj" would be read as "jpg.exe".
_TURNING = dict.fromkeys(
    map(ord, "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
)


@dataclass(frozen=True)
class Letter:
    """An incoming mail, as far as it could be read; ``problem`` says what could not.

    ``mailboxes`` are those of From, To, Cc and Reply-To as a person reads them, ``recipients`` the
    bare addresses of To and Cc with the header's name. Every string can be stored as UTF-8, and
    none is longer than its column.
    """

    message_id: str | None = None
    subject: str = ""
    sender: str = ""
    mailboxes: dict[str, list[str]] = field(default_factory=dict)
    recipients: list[tuple[str, str]] = field(default_factory=list)
    sent_at: datetime | None = None
    in_reply_to: str | None = None
    references: list[str] = field(default_factory=list)
    text: str = field(default="", repr=False)
    html: str | None = field(default=None, repr=False)
    files: list[File] = field(default_factory=list, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    bounce: Bounce | None = None
    problem: str | None = None


def read(raw: bytes) -> Letter:
    """Read a mail (RFC 5322, MIME); never raises, whatever the bytes."""
    try:
        return _Reader(raw).letter()
    except Exception as wrong:
        log.exception("a mail of %d bytes cannot be read", len(raw))
        return unread(f"it could not be read ({type(wrong).__name__})")


def unread(problem: str) -> Letter:
    """Return what stands for a mail of which nothing could be read."""
    return Letter(problem=problem)


class _Reader:
    """Reads one mail, and notes what it cannot read."""

    def __init__(self, raw: bytes) -> None:
        self.problems: list[str] = []
        self.is_whole = True
        self.message = self._parsed(raw)
        self.texts: list[str] = []
        self.htmls: list[str] = []
        self.files: list[File] = []

    def letter(self) -> Letter:
        """Return all of it that can be read."""
        message = self.message
        people = {name: self._people(name) for name in ("from", "to", "cc", "reply-to")}
        self._read_parts()
        text, html = self._words()
        return Letter(
            message_id=next(iter(self._ids("message-id")), None),
            subject=self._header("subject")[:LONGEST_LINE],
            sender=self._sender(people["from"]),
            mailboxes={
                name.replace("-", "_"): [_shown(*one) for one in found]
                for name, found in people.items()
                if found
            },
            recipients=_recipients(people),
            sent_at=self._date(),
            in_reply_to=next(iter(self._ids("in-reply-to")), None),
            references=self._ids("references")[-MOST_REFERENCES:],
            text=text,
            html=html,
            files=self.files,
            headers={
                name: self._header(name)[:LONGEST_LINE]
                for name in _KEPT
                if message.get(name) is not None
            },
            bounce=self._bounce(),
            problem="; ".join(dict.fromkeys(self.problems))[:500] or None,
        )

    # --- The whole
    # -----------------------------------------------------------------------------------

    def _parsed(self, raw: bytes) -> Message:
        if not raw.strip():
            self.is_whole = False
            self._note("it is empty")
            return Message()
        why = _outsize(raw)
        if why is None:
            try:
                found = email.message_from_bytes(raw)
                if not found.keys():
                    self._note("it has no headers")
                return found
            except RecursionError:
                why = "its parts are nested too deeply"
            except Exception as wrong:
                why = f"its parts could not be told apart ({type(wrong).__name__})"
        self.is_whole = False
        self._note(f"{why}, so only its headers were read")
        head = re.split(rb"\r?\n\r?\n", raw[:1_000_000], maxsplit=1)[0]
        return BytesHeaderParser().parsebytes(head + b"\n\n")

    def _note(self, problem: str) -> None:
        self.problems.append(problem)

    # --- Headers
    # -------------------------------------------------------------------------------------

    def _header(self, name: str) -> str:
        """Return a header's text, decoded (RFC 2047), on one line."""
        raw = self._raw_header(name)
        try:
            return line(charsets.words(raw))
        except Exception:
            self._note(f"its {name} could not be decoded")
            return line(raw)

    def _raw_header(self, name: str) -> str:
        found = self.message.get(name, "")
        # Bytes above 127 come as surrogates, or in a Header: mostly they are UTF-8, as RFC 6532
        # allows.
        raw = _text_of(found)
        if len(raw) > LONGEST_HEADER:
            self._note(f"its {name} is too long, and was cut")
        return charsets.recoded(raw[:LONGEST_HEADER])

    def _ids(self, name: str) -> list[str]:
        return list(dict.fromkeys(_MESSAGE_ID.findall(self._raw_header(name))))

    def _people(self, name: str) -> list[tuple[str, str]]:
        """Return (name, address) of each mailbox of a header; the address is as it is written."""
        try:
            found = email.utils.getaddresses([self._raw_header(name)])
        except Exception:
            self._note(f"its {name} could not be understood")
            return []
        if len(found) > MOST_PEOPLE:
            self._note(f"its {name} names {len(found)} people; {MOST_PEOPLE} of them are shown")
        people = [
            (line(charsets.words(shown)), line(address)[:LONGEST_ADDRESS])
            for shown, address in found[:MOST_PEOPLE]
        ]
        return [one for one in people if any(one)]

    def _sender(self, people: list[tuple[str, str]]) -> str:
        """Return who can be answered, or who wrote as far as a person can tell."""
        found = next((address for _, address in people if is_address(address)), None)
        written = self._header("from")
        if found is not None or not written:
            return found or ""
        self._note("its sender has no address that can be answered")
        return next((address for _, address in people if "@" in address), written)[:LONGEST_ADDRESS]

    def _date(self) -> datetime | None:
        try:
            found = email.utils.parsedate_to_datetime(self._raw_header("date"))
            known = found if found.tzinfo else found.replace(tzinfo=UTC)
            return known.astimezone(UTC) if 1970 < known.year < 2100 else None
        except Exception:
            return None

    def _bounce(self) -> Bounce | None:
        try:
            return bounces.found(self.message)
        except Exception as wrong:
            self._note(f"what came back could not be understood ({type(wrong).__name__})")
            return None

    # --- Parts
    # ---------------------------------------------------------------------------------------

    def _read_parts(self) -> None:
        for place, part in enumerate(_leaves(self.message) if self.is_whole else ()):
            if len(self.files) == MOST_FILES:
                self._note(f"it has more than {MOST_FILES} files; the others are in the raw mail")
                return
            try:
                self._read_part(place, part)
            except Exception as wrong:
                self._note(f"part {place + 1} could not be read ({type(wrong).__name__})")

    def _read_part(self, place: int, part: Message) -> None:
        kind = part.get_content_type().lower()
        kind = kind if _TYPE.fullmatch(kind) and len(kind) <= 127 else "application/octet-stream"
        if part.is_multipart():
            self._read_message(place, kind, part)
            return
        content = part.get_payload(decode=True)
        content = (
            content
            if isinstance(content, bytes)
            else str(part.get_payload()).encode("utf-8", "replace")
        )
        name = _filename(part)
        if kind.startswith("multipart/"):
            self._note("its parts are not where it says")
            kind = "text/plain"
        if (
            kind in ("text/plain", "text/html")
            and not name
            and part.get_content_disposition() != "attachment"
        ):
            self._read_text(kind, content, part)
            return
        content_id = line(str(part.get("content-id") or "")).strip("<> ")[:LONGEST_NAME] or None
        self.files.append(File(name or _default_name(place, kind), kind, content, content_id))

    def _read_message(self, place: int, kind: str, part: Message) -> None:
        """Keep a mail within the mail as one file, closed; of a report, its text."""
        within = _within(part)
        if kind == "message/delivery-status":
            self.texts.append("\n".join(_plain(one) for one in within)[:LONGEST_TEXT])
            return
        content = b"".join(one.as_bytes() for one in within)
        subject = _subject(within[0]) if within else ""
        name = _filename(part) or tidy_name(f"{subject[:80]}.eml" if subject else "")
        name = name or f"message-{place + 1}.eml"
        self.files.append(File(name, kind, content, None))

    def _read_text(self, kind: str, content: bytes, part: Message) -> None:
        is_cut = len(content) > 4 * LONGEST_TEXT
        text, is_sure = charsets.decoded(
            content[: 4 * LONGEST_TEXT], part.get_content_charset(None), is_cut=is_cut
        )
        if is_cut:
            self._note("its text is too long, and was cut")
        if not is_sure:
            self._note("its text is not in the character set it names")
        (self.htmls if kind == "text/html" else self.texts).append(
            storable(text.removeprefix("\ufeff"))
        )

    def _words(self) -> tuple[str, str | None]:
        text, html = "\n\n".join(self.texts), "\n".join(self.htmls)
        if max(len(text), len(html)) > LONGEST_TEXT:
            self._note("its text is too long, and was cut")
        text, html = text[:LONGEST_TEXT], html[:LONGEST_TEXT]
        if html and not markup.is_tame(html):
            self._note("its HTML is nested too deeply to be shown")
            return text, None
        if html and not text.strip():
            text = markup.text_of(html)
        return text.replace("\r\n", "\n").replace("\r", "\n"), html or None


def _outsize(raw: bytes) -> str | None:
    """Say what of a mail is more than any honest one has, and more than can be read in time."""
    counts = {
        "nested parts": (raw.lower().count(b"boundary="), MOST_BOUNDARIES),
        "parts": (raw.count(b"\n--"), MOST_PARTS),
        "lines": (raw.count(b"\n") + raw.count(b"\r") // 2, MOST_LINES),
    }
    return next(
        (f"it has too many {what}" for what, (count, most) in counts.items() if count > most), None
    )


def _leaves(message: Message) -> Iterator[Message]:
    """Yield the parts that are not containers, in order; a mail within the mail is one part."""
    ahead = [message]
    while ahead:
        part = ahead.pop()
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            ahead.extend(reversed(_within(part)))
        else:
            yield part


def _within(part: Message) -> list[Message]:
    # get_payload() of a text would decode it by whatever codec it names.
    inner = part.get_payload() if part.is_multipart() else []
    return [one for one in inner if isinstance(one, Message)] if isinstance(inner, list) else []


def _plain(message: Message) -> str:
    return (
        storable(
            "\n".join(f"{name}: {' '.join(str(value).split())}" for name, value in message.items())
        )
        + "\n"
    )


def _subject(message: Message) -> str:
    raw = charsets.recoded(_text_of(message.get("subject", ""))[:LONGEST_HEADER])
    try:
        return line(charsets.words(raw))
    except Exception:
        return line(raw)


def _filename(part: Message) -> str:
    plain = Message()
    for name in ("content-disposition", "content-type"):
        # The standard library would put marks in the place of bytes above 127.
        plain[name] = charsets.recoded(_text_of(part.get(name, ""))[:LONGEST_HEADER])
    raw = charsets.recoded(plain.get_filename("") or "")
    try:
        # Many mailers encode it as if it were a text (RFC 2047), which RFC 2231 forbids.
        return tidy_name(charsets.words(raw))
    except Exception:
        return tidy_name(raw)


def tidy_name(raw: str) -> str:
    """Return a file's name without folders, controls and marks that turn the text.

    "" if nothing is left.
    """
    last = (
        line(raw.replace("\\", "/")).rstrip("/").rpartition("/")[2].translate(_TURNING).strip(" .")
    )
    if not any(sign.isprintable() and not sign.isspace() for sign in last):
        return ""
    if len(last) <= LONGEST_NAME:
        return last
    stem, dot, kind = last.rpartition(".")
    return stem[: LONGEST_NAME - 20] + dot + kind[:19] if dot else last[:LONGEST_NAME]


def _default_name(place: int, kind: str) -> str:
    return f"part-{place + 1}{mimetypes.guess_extension(kind) or '.bin'}"


def _text_of(found: object) -> str:
    if isinstance(found, str):
        return found
    # compat32 hands out 8-bit headers as Header objects of "unknown-8bit".
    chunks: Iterable[tuple[str, object]] = getattr(found, "_chunks", ())
    return "".join(text for text, _ in chunks)


def _shown(name: str, address: str) -> str:
    return (f"{name} <{address}>" if name and address else name or address)[:LONGEST_LINE]


def _recipients(people: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for kind in ("to", "cc"):
        for _, address in people[kind]:
            if is_address(address):
                found.setdefault(address, kind)
    return [(kind, address) for address, kind in found.items()][:MOST_PEOPLE]
