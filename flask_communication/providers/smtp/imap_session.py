"""An IMAP session (RFC 3501): log in, open folders to read, list mails, fetch them.

The protocol is imaplib's, over a connection of ours: imaplib's own has no total deadline and
reserves memory for whatever length a server announces.
"""

from __future__ import annotations

import base64
import imaplib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ...errors import NotSent, Refused
from ...formats.text import mask
from ..base import LARGEST_MAIL
from ..net.lines import Broken, Wire
from ..net.sockets import Clock

# Enough to list the UIDs of a million mails.
_LISTING = 16_000_000
# Lines of an answer; a server may split what it lists.
_MOST_LINES = 100_000
# A quoted string has no line breaks, so only a small mail comes as one.
_LONGEST_QUOTED = 1_000_000
_UID = re.compile(rb"\bUID (\d{1,10})\b")
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d{1,12})\b")
_QUOTED = re.compile(rb'\bBODY\[[A-Z]*\] "((?:[^"\\]++|\\.)*+)"')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TEMPORARY = re.compile(r"\[(UNAVAILABLE|INUSE|LIMIT|SERVERBUG|CONTACTADMIN)\]")


@dataclass(frozen=True)
class Account:
    """The address and login of a mailbox, and the folders that are read."""

    host: str
    port: int
    security: str
    username: str
    password: str = field(repr=False)
    folders: Sequence[str] = ("INBOX",)


@dataclass(frozen=True)
class Listed:
    """The size and date of a mail."""

    size: int
    received_at: datetime | None


@dataclass(frozen=True)
class Mail:
    """A mail as it came; ``flaw`` says why ``raw`` is not the whole mail."""

    raw: bytes
    received_at: datetime | None
    flaw: str | None = None


class Box(imaplib.IMAP4):
    """imaplib over :class:`Wire`; these five methods are its way to replace the connection."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account = account
        self._clock = clock
        self._room = _LISTING
        self._lines = 0
        super().__init__(account.host, account.port)

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:
        self._wire = Wire(host, port, self._clock)
        if self._account.security == "tls":
            try:
                self._wire.start_tls()
            except BaseException:
                self._wire.close()
                raise

    def read(self, size: int) -> bytes:
        return self._wire.read(size)

    def readline(self) -> bytes:
        self._lines += 1
        if self._lines > _MOST_LINES:
            raise Broken("the server does not stop talking")
        return self._wire.readline()

    def send(self, data: Any) -> None:
        self._wire.allow(self._room)
        self._lines = 0
        self._wire.write(data)

    def shutdown(self) -> None:
        self._wire.close()

    def is_fresh(self) -> bool:
        """Tell whether the server has neither left nor said anything since its last answer."""
        return self._wire.is_quiet()

    def drop(self) -> None:
        """Close the connection."""
        self.shutdown()

    def leave(self) -> None:
        """Close the connection; LOGOUT would only be another command to wait for."""
        self.shutdown()

    def resume(self, clock: Clock) -> None:
        """Go on under another clock."""
        self._wire.clock = clock

    def enter(self) -> None:
        """Secure the connection and log in."""
        if self._account.security == "starttls":
            self._start_tls()
        if "PREAUTH" not in self.untagged_responses:
            self._log_in()

    def _start_tls(self) -> None:
        if "STARTTLS" not in self.capabilities:
            raise NotSent(
                f"{self._account.host} does not offer STARTTLS, or an attacker hides it; "
                "nothing is sent unencrypted. Correct imap_port and imap_security (993 wants tls)"
            )
        # In a session that claims to be logged in already, imaplib refuses this (CVE-2020-12398).
        status, said = self.xatom("STARTTLS")
        if status != "OK":
            raise NotSent(f"{self._account.host} refused STARTTLS: {self._quote_back(said)}")
        self._wire.start_tls()
        # Before TLS anybody in between may have said it.
        self.untagged_responses.clear()
        _, said = self.capability()
        self.capabilities = tuple(said[-1].decode("ascii").upper().split())

    def _log_in(self) -> None:
        user, password = self._account.username, self._account.password
        if _CONTROL.search(user + password):
            raise NotSent("the user name or password has a control character; enter them again")
        try:
            if "AUTH=PLAIN" in self.capabilities:
                self.authenticate("PLAIN", lambda _: f"\0{user}\0{password}".encode())
            elif "LOGINDISABLED" in self.capabilities:
                raise NotSent(
                    f"{self._account.host} allows no login in plain text; correct imap_security"
                )
            else:
                self.login(_quoted(user), password)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as exc:
            reason = f"{self._account.host} refused the login: {self._quote_back(exc)}"
            raise (NotSent if _TEMPORARY.search(str(exc)) else Refused)(reason) from None

    def examine(self, name: str) -> tuple[int, int]:
        """Open a folder for reading; return its UIDVALIDITY and UIDNEXT (0: missing)."""
        status, said = self.select(_quoted(_utf7(name)), readonly=True)
        if status != "OK":
            raise Refused(
                f"the mailbox has no folder {name!r} to read: {self._quote_back(said)}; see folders"
            )
        validity, uidnext = (self._number(code) for code in ("UIDVALIDITY", "UIDNEXT"))
        if not validity:
            raise Refused(
                f"{self._account.host} does not number the mails of {name!r} (no UIDVALIDITY)"
            )
        return validity, uidnext

    def newer(self, last: int) -> list[int]:
        """Return the UIDs after ``last``, ascending."""
        status, said = self.uid("SEARCH", f"UID {last + 1}:*")
        if status != "OK":
            raise NotSent(f"{self._account.host} refused to search: {self._quote_back(said)}")
        found = {int(word) for line in said if line for word in line.split() if word.isdigit()}
        # The last mail always matches n:*, even where it is older than n.
        return sorted(uid for uid in found if last < uid < 2**32)

    def sizes(self, uids: Sequence[int]) -> dict[int, Listed]:
        """Return size and date of those mails that are still there."""
        listed = {}
        for uid, said, _ in self._fetch(uids, "(UID RFC822.SIZE INTERNALDATE)"):
            size = _SIZE.search(said)
            if size is not None:
                listed[uid] = Listed(int(size[1]), _received(said))
        return listed

    def mails(
        self, uids: Sequence[int], listed: Mapping[int, Listed]
    ) -> Iterator[tuple[int, Mail | None]]:
        """Yield the mails of a batch in order, None for one that is gone."""
        small = [uid for uid in uids if uid in listed and listed[uid].size <= LARGEST_MAIL]
        found = self._bodies(small, "BODY.PEEK[]") if small else {}
        for uid in uids:
            about = listed.get(uid)
            if about is None:
                yield uid, None
            elif uid in found and len(found[uid]) <= LARGEST_MAIL:
                yield uid, Mail(found[uid], about.received_at)
            elif uid in found:
                # It was listed as smaller.
                yield uid, self.headers(uid, about, _too_large(len(found[uid])))
            else:
                yield uid, self._rest(uid, about, alone=len(small) == 1)

    def _rest(self, uid: int, about: Listed, *, alone: bool) -> Mail | None:
        """Return as much as possible of a mail that did not come whole."""
        if about.size > LARGEST_MAIL:
            why = _too_large(about.size)
        else:
            again = {} if alone else self._bodies([uid], "BODY.PEEK[]")
            if uid in again:
                return Mail(again[uid], about.received_at)
            if uid not in self.newer(uid - 1):
                return None
            why = "the server cannot give it to us"
        return self.headers(uid, about, why)

    def headers(self, uid: int, about: Listed, why: str) -> Mail:
        """Return the headers of a mail, or nothing of it; ``why`` explains it."""
        headers = self._bodies([uid], "BODY.PEEK[HEADER]").get(uid)
        came = "nothing of it was" if headers is None else "only its headers were"
        return Mail((headers or b"")[:LARGEST_MAIL], about.received_at, f"{came} fetched: {why}")

    def _bodies(self, uids: Sequence[int], what: str) -> dict[int, bytes]:
        # Some servers announce sizes that are only about right.
        self._room = 2 * LARGEST_MAIL
        try:
            return {
                uid: body for uid, _, body in self._fetch(uids, f"(UID {what})") if body is not None
            }
        except imaplib.IMAP4.abort:
            raise
        except (imaplib.IMAP4.error, NotSent):
            # The server fails at one of them; they are requested one by one.
            return {}
        finally:
            self._room = _LISTING

    def _fetch(self, uids: Sequence[int], what: str) -> list[tuple[int, bytes, bytes | None]]:
        status, said = self.uid("FETCH", ",".join(map(str, uids)), what)
        if status != "OK":
            raise NotSent(f"{self._account.host} refused to fetch: {self._quote_back(said)}")
        return list(_answers(said, frozenset(uids)))

    def _number(self, code: str) -> int:
        _, said = self.response(code)
        last = said[-1] if said else None
        return int(last) if isinstance(last, bytes) and last.isdigit() and len(last) <= 10 else 0

    def _quote_back(self, said: Any) -> str:
        if isinstance(said, list):
            said = b" ".join(one for one in said if isinstance(one, bytes)).decode(
                "utf-8", "replace"
            )
        return mask(str(said), {"password": self._account.password})


def _too_large(size: int) -> str:
    return f"it has {size} bytes, and no more than {LARGEST_MAIL} are fetched"


def _answers(
    said: Sequence[Any], wanted: frozenset[int]
) -> Iterator[tuple[int, bytes, bytes | None]]:
    """Yield UID, text and body of each FETCH reply, which imaplib returns in pieces."""
    pieces: list[bytes] = []
    body = None
    for piece in said:
        if isinstance(piece, tuple):
            pieces.append(piece[0])
            body = piece[1]
            continue
        words = b" ".join([*pieces, piece or b""])
        uid = _UID.search(words)
        if body is None and len(words) <= _LONGEST_QUOTED and (quoted := _QUOTED.search(words)):
            body = re.sub(rb"\\(.)", rb"\1", quoted[1])
        # A server may tell of other mails at any time.
        if uid is not None and int(uid[1]) in wanted:
            yield int(uid[1]), words, body
        pieces, body = [], None


def _received(said: bytes) -> datetime | None:
    try:
        moment = imaplib.Internaldate2tuple(said)
        return None if moment is None else datetime.fromtimestamp(time.mktime(moment), UTC)
    except (ValueError, OverflowError, KeyError):
        return None


def _utf7(name: str) -> str:
    """Encode a folder's name as RFC 3501 §5.1.3 wants it."""
    name = name.replace("&", "&-")
    return re.sub("[^ -~]+", lambda found: f"&{_shifted(found[0])}-", name)


def _shifted(text: str) -> str:
    return base64.b64encode(text.encode("utf-16-be")).decode().rstrip("=").replace("/", ",")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
