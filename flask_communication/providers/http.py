"""The one outbound HTTP client of all providers: a deadline, a size cap, no redirects.

httpx's own timeouts are per read: a server that drips one byte every few seconds would hold a
worker for ever. Here one clock runs over connecting, writing and reading.
"""

from __future__ import annotations

import base64
import functools
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ..errors import NotSent, OutcomeUnknown, ProviderError, Refused
from ..formats.strict_json import encode_json, parse_json
from ..formats.text import mask
from .net.hosts import Forbidden
from .net.sockets import TROUBLE, Answer, Clock, Line

if TYPE_CHECKING:
    import httpx

# A provider that asks for more patience than this is asked again after it.
LONGEST_RETRY_AFTER = 3600.0


@dataclass(frozen=True)
class Reply:
    """What a server answered: ``json`` is the parsed dict or list, None for anything else.

    ``text`` is the beginning of the body, for error messages. ``flaw`` says why the body could not
    be read (too long, or compressed although we asked for plain); :func:`classify` looks at it.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    json: Any = field(default=None, repr=False)
    text: str = field(default="", repr=False)
    flaw: str | None = None


class Http:
    """Call a provider over HTTP, from any number of threads.

    ``deadline`` and ``connect`` are seconds, of the whole call and of connecting (TCP and TLS);
    ``body_cap`` is the most bytes of an answer that are read. ``transport`` replaces the network,
    for tests and for calls into a WSGI application. Every method returns a :class:`Reply` for any
    complete answer, whatever its status, or raises :class:`NotSent` if no byte of the request can
    have left, else :class:`OutcomeUnknown`. Proxies of the environment are not used; the variable
    SSL_CERT_FILE, for a private certificate authority, is.
    """

    def __init__(
        self,
        deadline: float = 20.0,
        connect: float = 5.0,
        body_cap: int = 256 * 1024,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.deadline = deadline
        self.connect = connect
        self.body_cap = body_cap
        self._transport = transport
        self._local = threading.local()

    def post_json(
        self, url: str | httpx.URL, payload: object, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Post ``payload`` as JSON."""
        return self.post(url, encode_json(payload), "application/json", headers)

    def post_form(
        self,
        url: str | httpx.URL,
        fields: Mapping[str, Any] | Iterable[tuple[str, object]],
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Post ``fields`` as an HTML form would; a value that is a list repeats its field."""
        pairs = fields if isinstance(fields, Mapping) else list(fields)
        body = urlencode(pairs, doseq=True).encode()
        return self.post(url, body, "application/x-www-form-urlencoded", headers)

    def get_json(
        self,
        url: str | httpx.URL,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Reply:
        """Get a document that should be JSON."""
        return self.request("GET", url, b"", headers or {}, deadline)

    def post(
        self,
        url: str | httpx.URL,
        body: bytes,
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Post exactly these bytes, which a signature in ``headers`` may cover."""
        return self.request("POST", url, body, {"Content-Type": content_type, **(headers or {})})

    def request(
        self,
        method: str,
        url: str | httpx.URL,
        body: bytes,
        headers: Mapping[str, str],
        deadline: float | None = None,
    ) -> Reply:
        """Make one call; the other methods are spellings of this one."""
        line = self._line()
        line.clock.start(self.deadline if deadline is None else deadline, self.connect)
        where, given = _parsed(url), {**_HEADERS, **headers}
        if self._transport is not None:
            return self._by_transport(self._transport, line.clock, method, where, given, body)
        try:
            return self._read(line.exchange(method, where, given, body), line.clock)
        except TROUBLE as exc:
            raise _outcome(exc, not line.clock.wrote, where.host) from None

    def _by_transport(
        self,
        transport: httpx.BaseTransport,
        clock: Clock,
        method: str,
        where: httpx.URL,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Reply:
        from . import transport as other

        try:
            return self._read(other.exchange(transport, method, where, headers, body), clock)
        except other.TROUBLE as exc:
            raise _outcome(exc, isinstance(exc, other.UNSENT), where.host) from None

    def _read(self, answer: Answer, clock: Clock) -> Reply:
        try:
            body, flaw = _body(answer, self.body_cap, clock)
        finally:
            answer.end()
        return Reply(answer.status, answer.headers, _document(body), _prefix(body), flaw)

    def _line(self) -> Line:
        line: Line | None = getattr(self._local, "line", None)
        # A socket shared with the parent of a fork would mix two conversations.
        if line is None or line.pid != os.getpid():
            line = self._local.line = Line()
        return line


def classify(reply: Reply, config: Mapping[str, Any] | None = None) -> Reply:
    """Return a 2xx reply that could be read, else raise the outcome that its status means.

    429, 425 (RFC 8470: not risked) and 503 with Retry-After are :class:`NotSent`; other 4xx are
    :class:`Refused`; all else is :class:`OutcomeUnknown`. So is 408, although RFC 9110 §15.5.9
    means "your request did not arrive": gateways also say it when a server behind them was slow.
    What the answer says is quoted, without the strings of ``config`` that it repeats; ``only_this:
    true`` in it says that the failure is this message's alone, ``opted_out: true`` that its
    recipient wants none.
    """
    status = reply.status
    if 200 <= status < 300 and reply.flaw is None:
        return reply
    reason = f"the provider answered {status}{_said(reply, config)}"
    said = reply.json if isinstance(reply.json, dict) else {}
    alone = said.get("only_this") is True
    if status in (425, 429) or (status == 503 and "retry-after" in reply.headers):
        wait = retry_after(reply.headers)
        raise NotSent(reason, http_status=status, retry_after=wait, only_this=alone)
    if 400 <= status < 500 and status != 408:
        stop = said.get("opted_out") is True
        raise Refused(reason, http_status=status, only_this=alone, opted_out=stop)
    raise OutcomeUnknown(
        f"{reason}; look the message up at the provider before sending it again",
        http_status=status,
        only_this=alone,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After (RFC 9110 §10.2.3: seconds, or a date) as seconds, at most an hour.

    None where it is absent, negative or garbage.
    """
    raw = headers.get("retry-after", "").strip()
    seconds = float(raw) if raw.isascii() and raw.isdecimal() and len(raw) < 20 else _until(raw)
    if seconds is None or seconds < 0:
        return None
    return min(seconds, LONGEST_RETRY_AFTER)


def basic_auth(user: str, password: str) -> dict[str, str]:
    """Return the Authorization header of HTTP Basic authentication (RFC 7617)."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


_HEADERS = {
    "User-Agent": "Flask-Communication",
    "Accept": "application/json",
    # A few kilobytes of gzip can unfold to hundreds of megabytes.
    "Accept-Encoding": "identity",
}


def _parsed(url: str | httpx.URL) -> httpx.URL:
    if not isinstance(url, str):
        return url
    try:
        return _parsed_text(url)
    except ValueError as exc:
        raise _unusable(exc) from None


@functools.lru_cache(maxsize=64)
def _parsed_text(url: str) -> httpx.URL:
    # A worker calls the same few addresses over and over.
    import httpx

    try:
        return httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise ValueError(str(exc)) from None


def _unusable(exc: Exception) -> NotSent:
    return NotSent(
        f"the address or a header of the provider is unusable ({type(exc).__name__}); "
        "check its URL and its key"
    )


def _said(reply: Reply, config: Mapping[str, Any] | None) -> str:
    if reply.flaw:
        return f", and its body {reply.flaw}"
    if 300 <= reply.status < 400:
        return ", a redirect, which is never followed; correct the provider's address"
    document = reply.json if isinstance(reply.json, dict) else {}
    said = document.get("msg") or document.get("message")
    text = mask(said if isinstance(said, str) else reply.text, config)
    return f": {text}" if text and not text.startswith("<") else ""


def _until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _body(answer: Answer, cap: int, clock: Clock) -> tuple[bytes, str | None]:
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        return b"", f"came compressed ({mask(coding)[:20]}) although plain was asked for"
    parts: list[bytes] = []
    size = 0
    for part in answer.parts:
        size += len(part)
        if size > cap:
            return b"", f"is longer than {cap} bytes"
        clock.left()
        parts.append(part)
    return b"".join(parts), None


def _document(body: bytes) -> object:
    try:
        value = parse_json(body)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None


def _prefix(body: bytes) -> str:
    return body[:500].decode("utf-8", "replace")


def _outcome(exc: Exception, is_unsent: bool, host: str) -> ProviderError:
    if is_unsent and isinstance(exc, ValueError) and not isinstance(exc, OSError):
        return _unusable(exc)
    if isinstance(exc, Forbidden):
        return NotSent(f"{exc}; nothing was sent")
    what = f"{host or 'the provider'}: {type(exc).__name__}"
    if is_unsent:
        return NotSent(f"{what}, so nothing was sent; check that the provider can be reached")
    return OutcomeUnknown(
        f"{what} after the request was on its way; look the message up at the provider "
        "before sending it again"
    )
