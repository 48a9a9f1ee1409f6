"""Fetch the new mails of some folders by IMAP, by UID, without changing anything there."""

from __future__ import annotations

import imaplib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import NotSent, ProviderError, Refused
from ...formats.text import mask
from ..base import MOST_MAIL_BYTES, InboundEmail, Inbox
from ..net.sockets import Clock
from .imap_session import Account, Box, Listed, Mail
from .pool import Pool
from .smtp_session import described

PORTS = {"tls": 993, "starttls": 143, "none": 143}
# Seconds of a visit, and until no further mails are requested: those that came must be stored.
DEADLINE = 30.0
_ENOUGH = 15.0
_CONNECT = 5.0
# Mails that are fetched by one command, to save round trips.
_BATCH = 50
_BATCH_BYTES = 2_000_000
# RFC 7162 §4 asks for command lines of at most 8192 octets; a UID has up to ten digits.
_SIZES_AT_ONCE = 500
# How a visit requests mails: many at once, one at a time, or only the headers of the first.
VISITS = _BATCHED, _ALONE, _HEADERS = range(3)


# A mailbox that is read in pages is logged into once.
Mailboxes = Pool[Account, Box]


def fetch(
    account: Account,
    cursor: Mapping[str, Any],
    limit: int,
    deadline: float = DEADLINE,
    pool: Mailboxes | None = None,
) -> Inbox:
    """Return up to ``limit`` mails newer than ``cursor``; a visit takes ``deadline`` seconds.

    The cursor has for each folder its UIDVALIDITY and the last UID; where the first has changed,
    the folder is new, and is read from its beginning. A mail larger than 25 MB, or that the server
    cannot give us in three visits, comes with a ``flaw`` and as much as there is, so that it does
    not block those behind it. While there is more, the connection goes into ``pool``. Raises
    :class:`NotSent` when the server cannot be reached and :class:`Refused` when it refuses. Mails
    that were read before are returned first; the next call then raises the failure.
    """
    reading = _Reading(cursor, limit)
    failure: ProviderError | None = None
    for care in VISITS:
        failure = _visit(account, reading, care, deadline, pool)
        # Where the connection broke during a mail, this mail may be why.
        if failure is None or reading.mails or not reading.is_asking:
            break
    if failure is not None and not reading.mails:
        raise failure
    return Inbox(reading.mails, reading.cursor, reading.more or failure is not None)


def check(account: Account, deadline: float = DEADLINE) -> None:
    """Log in and leave; raise :class:`NotSent` or :class:`Refused`, as :func:`fetch` does."""
    failure = _visit(replace(account, folders=()), _Reading({}, 1), _BATCHED, deadline, None)
    if failure is not None:
        raise failure


def _visit(
    account: Account, reading: _Reading, care: int, deadline: float, pool: Mailboxes | None
) -> ProviderError | None:
    clock = Clock()
    clock.start(deadline, _CONNECT)
    try:
        box = pool.take(account) if pool is not None else None
        if box is not None:
            box.resume(clock)
            try:
                return _read(box, account, reading, care, pool)
            except (imaplib.IMAP4.error, OSError):
                if reading.mails or reading.is_asking:
                    raise
                # The server closed it while it was idle. This visit opens a new one.
        return _read(_entered(account, clock), account, reading, care, pool)
    except ProviderError as exc:
        return exc
    except (imaplib.IMAP4.error, OSError, ValueError) as exc:
        return _lost(account, exc)


def _entered(account: Account, clock: Clock) -> Box:
    box = Box(account, clock)
    try:
        box.enter()
    except BaseException:
        box.shutdown()
        raise
    return box


def _read(
    box: Box, account: Account, reading: _Reading, care: int, pool: Mailboxes | None
) -> ProviderError | None:
    is_done = True
    try:
        failure = reading.read(box, account.folders, care)
        is_done = pool is None or failure is not None or not reading.more
    finally:
        if is_done:
            box.shutdown()
    if pool is not None and not is_done:
        pool.give(account, box)
    return failure


class _Reading:
    """The mails of one fetch, and the cursor so far."""

    def __init__(self, cursor: Mapping[str, Any], limit: int) -> None:
        self.mails: list[InboundEmail] = []
        self.cursor: dict[str, Any] = dict(cursor)
        self.more = False
        self.is_asking = False
        self._care = _BATCHED
        self._limit = limit
        self._bytes = 0
        self._ends = time.monotonic() + _ENOUGH

    def read(self, box: Box, folders: Sequence[str], care: int) -> ProviderError | None:
        """Read the folders in turn; return the failure of the first that the server refused."""
        self.is_asking = False
        self._care = care
        failure: ProviderError | None = None
        for name in folders:
            if self._is_full():
                self.more = True
                break
            try:
                self._folder(box, name)
            except Refused as exc:
                # A folder that is gone must not hide the others.
                failure = failure or exc
        return failure

    def _is_full(self, ahead: int = 0) -> bool:
        room = len(self.mails) < self._limit and self._bytes + ahead < MOST_MAIL_BYTES
        return bool(self.mails) and not (room and time.monotonic() < self._ends)

    def _folder(self, box: Box, name: str) -> None:
        validity, uidnext = box.examine(name)
        known = self.cursor.get(name) or {}
        last = int(known.get("uid", 0)) if known.get("uidvalidity") == validity else 0
        uids = [] if last + 1 == uidnext else box.newer(last)
        for uid, mail in self._mails(box, uids[: self._limit - len(self.mails)]):
            if mail is not None:
                if self._bytes + len(mail.raw) > MOST_MAIL_BYTES:
                    # It was listed as smaller; the next fetch brings it.
                    break
                where = f"{name}/{validity}/{uid}"
                self.mails.append(InboundEmail(where, mail.raw, name, mail.received_at, mail.flaw))
                self._bytes += len(mail.raw)
            last = uid
            self.cursor[name] = {"uidvalidity": validity, "uid": last}
        if uids and last < uids[-1]:
            self.more = True
        else:
            # What came after EXAMINE has UIDNEXT or more.
            self.cursor[name] = {"uidvalidity": validity, "uid": max(last, uidnext - 1)}

    def _mails(self, box: Box, uids: Sequence[int]) -> Iterator[tuple[int, Mail | None]]:
        for start in range(0, len(uids), _SIZES_AT_ONCE):
            some = uids[start : start + _SIZES_AT_ONCE]
            listed = box.sizes(some)
            for batch in _batches(some, listed, _BATCH if self._care == _BATCHED else 1):
                if self._is_full(sum(listed[uid].size for uid in batch if uid in listed)):
                    return
                self.is_asking = True
                yield from self._asked(box, batch, listed)
                self.is_asking = False

    def _asked(
        self, box: Box, batch: Sequence[int], listed: Mapping[int, Listed]
    ) -> Iterator[tuple[int, Mail | None]]:
        if self._care == _HEADERS and batch[0] in listed:
            self._care = _ALONE
            why = "the connection broke each time it was asked for"
            yield batch[0], box.headers(batch[0], listed[batch[0]], why)
        else:
            yield from box.mails(batch, listed)


def _batches(uids: Sequence[int], sizes: Mapping[int, Listed], most: int) -> Iterator[list[int]]:
    batch: list[int] = []
    total = 0
    for uid in uids:
        size = sizes[uid].size if uid in sizes else 0
        if batch and (len(batch) == most or total + size > _BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(uid)
        total += size
    if batch:
        yield batch


def _lost(account: Account, exc: Exception) -> NotSent:
    text = (
        described(exc)
        if isinstance(exc, OSError)
        else mask(str(exc), {"password": account.password})
    )
    return NotSent(
        f"{account.host}:{account.port}: {text}; check imap_host, imap_port and imap_security"
    )
