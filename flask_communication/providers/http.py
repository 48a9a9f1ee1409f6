"""The outbound HTTP client of all providers: a total deadline, a size cap, no redirects.

The timeouts of httpx are per read: a server that sends one byte every few seconds would hold a
worker without end. Here one clock runs over connecting, writing and reading.
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
from .net.sockets import NETWORK_ERRORS, Clock, Connections, RawReply

if TYPE_CHECKING:
    import httpx

# Seconds; a longer Retry-After is cut to this.
LONGEST_RETRY_AFTER = 3600.0


@dataclass(frozen=True)
class Reply:
    """The reply of a server: ``json`` is the parsed dict or list, None for anything else.

    ``text`` is the beginning of the body, for error messages. ``flaw`` says why the body could not
    be read (too long, or compressed although we asked for plain); :func:`classify` looks at it.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    json: Any = field(default=None, repr=False)
    text: str = field(default="", repr=False)
    flaw: str | None = None


class Http:
    """An HTTP client for requests to a provider, from any number of threads.

    ``deadline`` and ``connect`` are seconds, of the whole request and of connecting (TCP and TLS);
    ``body_cap`` is the most bytes of a body that are read. ``transport`` replaces the network, for
    tests and for requests into a WSGI application. Every method returns a :class:`Reply` for any
    complete reply, whatever its status, or raises :class:`NotSent` if no byte of the request can
    have left, else :class:`OutcomeUnknown`. Private addresses are not reached unless they are
    allowed (see :mod:`.hosts`). Proxies of the environment are not used; the variable SSL_CERT_FILE
    names a private certificate authority.
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
        """Make one request; the other methods are short forms of this one."""
        connections = self._connections()
        clock = connections.clock
        clock.start(self.deadline if deadline is None else deadline, self.connect)
        where, given = _parsed(url), {**_HEADERS, **headers}
        if self._transport is not None:
            return self._by_transport(self._transport, clock, method, where, given, body)
        try:
            return self._read(connections.exchange(method, where, given, body), clock)
        except NETWORK_ERRORS as exc:
            raise _outcome(exc, not clock.wrote, where.host) from None

    def _by_transport(
        self,
        transport: httpx.BaseTransport,
        clock: Clock,
        method: str,
        where: httpx.URL,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Reply:
        import httpx

        # Their types say that nothing left.
        unsent = (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.UnsupportedProtocol,
        )
        try:
            reply = transport.handle_request(
                httpx.Request(method, where, content=body, headers=dict(headers))
            )
            return self._read(_raw(reply), clock)
        except (httpx.TransportError, httpx.StreamError, *NETWORK_ERRORS) as exc:
            raise _outcome(exc, isinstance(exc, unsent), where.host) from None

    def _read(self, raw: RawReply, clock: Clock) -> Reply:
        try:
            body, flaw = _body(raw, self.body_cap, clock)
        finally:
            raw.end()
        return Reply(raw.status, raw.headers, _document(body), _prefix(body), flaw)

    def _connections(self) -> Connections:
        found: Connections | None = getattr(self._local, "connections", None)
        # A socket shared with the parent of a fork would mix two conversations.
        if found is None or found.pid != os.getpid():
            found = self._local.connections = Connections()
        return found


def classify(reply: Reply, config: Mapping[str, Any] | None = None) -> Reply:
    """Return a 2xx reply that could be read, else raise the outcome that its status means.

    429, 425 (RFC 8470) and 503 with Retry-After are :class:`NotSent`. Other 4xx are
    :class:`Refused`. Everything else is :class:`OutcomeUnknown`, also 408: by RFC 9110 §15.5.9 the
    request did not arrive, but gateways also say it when a server behind them was slow. The error
    quotes the reply, without the strings of ``config`` that it repeats. ``only_this: true`` in the
    reply says that the failure is this message's alone, ``opted_out: true`` that its recipient
    wants no messages.
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
    # A worker uses the same few addresses over and over.
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


def _raw(reply: httpx.Response) -> RawReply:
    # The stream of a response that was made in memory was read when it was made.
    parts = iter([reply.content]) if reply.is_stream_consumed else reply.iter_raw()
    return RawReply(reply.status_code, reply.headers, parts, reply.close)


def _body(raw: RawReply, cap: int, clock: Clock) -> tuple[bytes, str | None]:
    coding = raw.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        return b"", f"came compressed ({mask(coding)[:20]}) although plain was asked for"
    parts: list[bytes] = []
    size = 0
    for part in raw.parts:
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
