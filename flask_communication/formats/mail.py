"""Parse an incoming mail (RFC 5322, MIME); never raises."""

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

from . import html as markup
from .addresses import LONGEST_ADDRESS, is_address, message_ids
from .bounces import Bounce, find_bounce, parts_of
from .files import LONGEST_CONTENT_ID, File, is_content_type, tidy_filename
from .text import (
    LONGEST_HEADER,
    LONGEST_REASON,
    LONGEST_TEXT,
    decode,
    decode_surrogates,
    decode_words,
    make_storable,
    one_line,
)

log = logging.getLogger(__name__)

# Of a header that is stored (RFC 5322 §2.1.1 has as many in a line).
LONGEST_LINE = 998
MOST_FILES = 200
MOST_PEOPLE = 200
MOST_REFERENCES = 50
# The standard library's parser takes time with the square of these; no honest mail has as many.
MOST_BOUNDARIES = 200
MOST_PARTS = 5_000
MOST_LINES = 600_000
_STORED_HEADERS = (
    "return-path delivered-to authentication-results auto-submitted precedence list-id "
    "list-unsubscribe list-unsubscribe-post importance x-priority"
).split()


@dataclass(frozen=True)
class ParsedMail:
    """An incoming mail, as far as it could be read; ``problem`` says what could not.

    ``mailboxes`` are those of From, To, Cc and Reply-To as a person reads them. ``recipients`` are
    pairs of "to" or "cc" and a bare address. Every string can be stored as UTF-8, and none is
    longer than its column.
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


def parse(raw: bytes) -> ParsedMail:
    """Parse a mail; never raises, whatever the bytes."""
    try:
        return _Parser(raw).parsed()
    except Exception as wrong:
        log.exception("a mail of %d bytes cannot be read", len(raw))
        return unreadable(f"it could not be read ({type(wrong).__name__})")


def unreadable(problem: str) -> ParsedMail:
    """Return an empty mail with a problem, for one that could not be read."""
    return ParsedMail(problem=problem)


class _Parser:
    """Parses one mail, and collects the problems."""

    def __init__(self, raw: bytes) -> None:
        self.problems: list[str] = []
        self.is_whole = True
        self.message = self._message(raw)
        self.texts: list[str] = []
        self.htmls: list[str] = []
        self.files: list[File] = []

    def parsed(self) -> ParsedMail:
        """Return what could be read."""
        message = self.message
        people = {name: self._people(name) for name in ("from", "to", "cc", "reply-to")}
        self._read_parts()
        text, html = self._text_and_html()
        return ParsedMail(
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
                for name in _STORED_HEADERS
                if message.get(name) is not None
            },
            bounce=self._bounce(),
            problem="; ".join(dict.fromkeys(self.problems))[:LONGEST_REASON] or None,
        )

    # --- The whole

    def _message(self, raw: bytes) -> Message:
        if not raw.strip():
            self.is_whole = False
            self._note("it is empty")
            return Message()
        why = _excess(raw)
        if why is None:
            try:
                found = email.message_from_bytes(raw)
                if not found.keys():
                    self._note("it has no headers")
                return found
            except RecursionError:
                why = "its parts are nested too deeply"
            except Exception as wrong:
                why = f"its parts could not be separated ({type(wrong).__name__})"
        self.is_whole = False
        self._note(f"{why}, so only its headers were read")
        head = re.split(rb"\r?\n\r?\n", raw[:1_000_000], maxsplit=1)[0]
        return BytesHeaderParser().parsebytes(head + b"\n\n")

    def _note(self, problem: str) -> None:
        self.problems.append(problem)

    # --- Headers

    def _header(self, name: str) -> str:
        """Return a header's text, decoded (RFC 2047), on one line."""
        raw = self._raw_header(name)
        try:
            return one_line(decode_words(raw))
        except Exception:
            self._note(f"its {name} could not be decoded")
            return one_line(raw)

    def _raw_header(self, name: str) -> str:
        raw = _text_of(self.message.get(name, ""))
        if len(raw) > LONGEST_HEADER:
            self._note(f"its {name} is too long, and was cut")
        # 8-bit headers are mostly UTF-8, as RFC 6532 allows.
        return decode_surrogates(raw[:LONGEST_HEADER])

    def _ids(self, name: str) -> list[str]:
        return message_ids(self._raw_header(name))

    def _people(self, name: str) -> list[tuple[str, str]]:
        """Return (name, address) of each mailbox of a header; the address is unchecked."""
        try:
            found = email.utils.getaddresses([self._raw_header(name)])
        except Exception:
            self._note(f"its {name} could not be understood")
            return []
        if len(found) > MOST_PEOPLE:
            self._note(f"its {name} names {len(found)} people; {MOST_PEOPLE} of them are shown")
        people = [
            (one_line(decode_words(shown)), one_line(address)[:LONGEST_ADDRESS])
            for shown, address in found[:MOST_PEOPLE]
        ]
        return [one for one in people if any(one)]

    def _sender(self, people: list[tuple[str, str]]) -> str:
        """Return the address to answer to; without one, what From says."""
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
            return find_bounce(self.message)
        except Exception as wrong:
            self._note(f"its report of delivery could not be understood ({type(wrong).__name__})")
            return None

    # --- Parts

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
        kind = kind if is_content_type(kind) else "application/octet-stream"
        if part.is_multipart():
            self._read_message(place, kind, part)
            return
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):
            content = str(part.get_payload()).encode("utf-8", "replace")
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
        content_id = (
            one_line(str(part.get("content-id") or "")).strip("<> ")[:LONGEST_CONTENT_ID] or None
        )
        self.files.append(File(name or _default_name(place, kind), kind, content, content_id))

    def _read_message(self, place: int, kind: str, part: Message) -> None:
        """Add a mail within the mail as one file, unopened; of a delivery report, its text."""
        within = parts_of(part)
        if kind == "message/delivery-status":
            self.texts.append("\n".join(_plain(one) for one in within)[:LONGEST_TEXT])
            return
        content = b"".join(one.as_bytes() for one in within)
        subject = _subject(within[0]) if within else ""
        name = _filename(part) or tidy_filename(f"{subject[:80]}.eml" if subject else "")
        name = name or f"message-{place + 1}.eml"
        self.files.append(File(name, kind, content, None))

    def _read_text(self, kind: str, content: bytes, part: Message) -> None:
        is_cut = len(content) > 4 * LONGEST_TEXT
        text, is_sure = decode(
            content[: 4 * LONGEST_TEXT], part.get_content_charset(None), is_cut=is_cut
        )
        if is_cut:
            self._note("its text is too long, and was cut")
        if not is_sure:
            self._note("its text is not in the character set it names")
        (self.htmls if kind == "text/html" else self.texts).append(
            make_storable(text.removeprefix("\ufeff"))
        )

    def _text_and_html(self) -> tuple[str, str | None]:
        text, html = "\n\n".join(self.texts), "\n".join(self.htmls)
        if max(len(text), len(html)) > LONGEST_TEXT:
            self._note("its text is too long, and was cut")
        text, html = text[:LONGEST_TEXT], html[:LONGEST_TEXT]
        if html and not markup.is_safe_to_parse(html):
            self._note("its HTML is nested too deeply to be shown")
            return text, None
        if html and not text.strip():
            text = markup.text_of(html)
        return text.replace("\r\n", "\n").replace("\r", "\n"), html or None


def _excess(raw: bytes) -> str | None:
    """Return which count of a mail is too large to parse it in time; None if none is."""
    counts = {
        "nested parts": (raw.lower().count(b"boundary="), MOST_BOUNDARIES),
        "parts": (raw.count(b"\n--"), MOST_PARTS),
        "lines": (raw.count(b"\n") + raw.count(b"\r") // 2, MOST_LINES),
    }
    return next(
        (f"it has too many {what}" for what, (count, most) in counts.items() if count > most), None
    )


def _leaves(message: Message) -> Iterator[Message]:
    """Yield the parts that are no multipart, in order; a mail within the mail is one part."""
    ahead = [message]
    while ahead:
        part = ahead.pop()
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            ahead.extend(reversed(parts_of(part)))
        else:
            yield part


def _plain(message: Message) -> str:
    return (
        make_storable(
            "\n".join(f"{name}: {' '.join(str(value).split())}" for name, value in message.items())
        )
        + "\n"
    )


def _subject(message: Message) -> str:
    raw = decode_surrogates(_text_of(message.get("subject", ""))[:LONGEST_HEADER])
    try:
        return one_line(decode_words(raw))
    except Exception:
        return one_line(raw)


def _filename(part: Message) -> str:
    plain = Message()
    for name in ("content-disposition", "content-type"):
        # The standard library would replace bytes above 127.
        plain[name] = decode_surrogates(_text_of(part.get(name, ""))[:LONGEST_HEADER])
    raw = decode_surrogates(plain.get_filename("") or "")
    try:
        # Many mailers write encoded words (RFC 2047) here, which RFC 2231 forbids.
        return tidy_filename(decode_words(raw))
    except Exception:
        return tidy_filename(raw)


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
