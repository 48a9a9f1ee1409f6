"""The connections below the HTTP client: every socket operation gets the rest of one deadline.

The clock of a request also remembers whether a byte of it may have left: that is the whole
difference between *not sent* and *unknown*.
"""

from __future__ import annotations

import functools
import http.client
import os
import select
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import hosts

if TYPE_CHECKING:
    import httpx

# Shorter than the 5 s after which common servers drop an idle connection: a request that crosses
# with the server's close looks the same as one that was carried out.
_KEEPALIVE = 4.0
_PART = 65536
# By how much one operation may miss the deadline, in seconds.
_SLACK = 0.05

# Not `Exception`: the time limit of an RQ job is an exception too, and must pass.
NETWORK_ERRORS = (http.client.HTTPException, OSError, ValueError)


class Clock:
    """The time left of a thread's request, and whether a byte of it may have left.

    ``left`` and ``connect_left`` return seconds, or raise TimeoutError when there are none.
    """

    __slots__ = ("connect_ends", "ends", "wrote")

    def start(self, deadline: float, connect: float) -> None:
        now = time.monotonic()
        self.ends = now + deadline
        self.connect_ends = now + min(connect, deadline)
        self.wrote = False

    def left(self) -> float:
        return _positive(self.ends - time.monotonic())

    def connect_left(self) -> float:
        return _positive(self.connect_ends - time.monotonic())


def _positive(seconds: float) -> float:
    # A timeout of 0 would mean "do not block" to a socket, not "no time left".
    if seconds <= 0:
        raise TimeoutError("the deadline has passed")
    return seconds


class RawReply(NamedTuple):
    """A reply whose body is still to be read; ``end`` must be called afterwards, read or not."""

    status: int
    headers: Mapping[str, str]
    parts: Iterator[bytes]
    end: Callable[[], None]


class Connections:
    """The open connections of one thread, one for each server, and its clock.

    The standard library speaks HTTP here. httpx takes 2.0 to 2.9 times as long for a request,
    measured as a POST over the loopback.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.clock = Clock()
        self._open: dict[tuple[str, str, int], _Connection] = {}
        closing = weakref.finalize(self, _close, self._open)
        # At the end of the process other threads may still be talking.
        closing.atexit = False

    def exchange(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes
    ) -> RawReply:
        """Make a request and return the beginning of its reply; raise one of NETWORK_ERRORS."""
        connection = self._connection(url)
        try:
            connection.put(method, url.raw_path.decode("ascii"), headers, body)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        headers = cast("Mapping[str, str]", response.headers)
        return RawReply(
            response.status, headers, _parts(response), lambda: connection.end(response)
        )

    def _connection(self, url: httpx.URL) -> _Connection:
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("the address must begin with http:// or https:// and have a host")
        origin = (
            url.scheme,
            url.raw_host.decode("ascii"),
            url.port or (443 if url.scheme == "https" else 80),
        )
        if origin not in self._open:
            self._open[origin] = _Connection(*origin, self.clock)
        self._open[origin].freshen()
        return self._open[origin]


def _close(connections: dict[Any, _Connection]) -> None:
    # In the child of a fork this closes only the child's copies of the sockets.
    for connection in connections.values():
        connection.close()


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        """Read the beginning of the final reply; interim ones (RFC 9110 §15.2) are skipped."""
        super().begin()
        while 100 <= self.status < 200:
            if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                raise http.client.HTTPException(
                    "the server switched to another protocol without being asked"
                )
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()


class _Connection(http.client.HTTPConnection):
    response_class = _Response

    def __init__(self, scheme: str, host: str, port: int, clock: Clock) -> None:
        super().__init__(host, port)
        # Decides whether the Host header names the port.
        self.default_port = 443 if scheme == "https" else 80
        self._tls = scheme == "https"
        self._clock = clock
        self._idle_since = 0.0
        self._written: list[bytes] = []

    def connect(self) -> None:
        plain = connect(addresses(self.host, self.port), self._clock)
        try:
            sock = self._secured(plain) if self._tls else _Socket(fileno=plain.detach())
        except BaseException:
            plain.close()
            raise
        sock.clock = self._clock
        self.sock = sock

    def _secured(self, plain: socket.socket) -> _TLSSocket:
        plain.settimeout(self._clock.connect_left())
        return cast("_TLSSocket", _tls().wrap_socket(plain, server_hostname=self.host))

    def put(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        """Write a request, head and body at once; ValueError for a header with odd characters."""
        if not _writable("".join(headers.values())):
            raise ValueError("a header is not printable ASCII")
        self._written.clear()
        self.request(method, target, body, headers)
        if self.sock is None:
            self.connect()
        self.sock.sendall(b"".join(self._written))

    def send(self, data: Any) -> None:
        """Collect what :meth:`put` writes."""
        self._written.append(data)

    def freshen(self) -> None:
        """Close the connection if the server may have closed it while it was idle."""
        idle = time.monotonic() - self._idle_since
        if self.sock is not None and (idle > _KEEPALIVE or is_readable(self.sock)):
            self.close()

    def end(self, response: http.client.HTTPResponse) -> None:
        """Keep the connection if the reply was read to its end, else close it."""
        self._idle_since = time.monotonic()
        if not response.isclosed():
            response.close()
            self.close()


def _parts(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while part := response.read(_PART):
        yield part
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


class _Timed:
    """A socket whose every operation gets only the time that is left of the request."""

    clock: Clock

    def recv_into(self, *args: Any) -> int:
        _limit(self, self.clock)
        return int(super().recv_into(*args))  # type: ignore[misc]

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.clock.wrote = self.clock.wrote or bool(data)
        _limit(self, self.clock)
        super().sendall(data, flags)  # type: ignore[misc]


class _Socket(_Timed, socket.socket):
    pass


class _TLSSocket(_Timed, ssl.SSLSocket):
    def send(self, data: Any, flags: int = 0) -> int:
        # sendall() of a TLS socket is many of these.
        _limit(self, self.clock)
        return super().send(data, flags)


def _limit(sock: Any, clock: Clock) -> None:
    # Setting it is a system call, and lets another thread take over: not for a few milliseconds.
    left, limit = clock.left(), sock.gettimeout()
    if limit is None or abs(limit - left) > _SLACK:
        sock.settimeout(left)


def _writable(text: str) -> bool:
    return text.isascii() and text.isprintable()


@functools.cache
def _tls() -> ssl.SSLContext:
    import httpx

    # Loading the certificates takes some 20 ms: once a process, not once a connection.
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = _TLSSocket
    return context


Address = tuple[socket.AddressFamily, tuple[Any, ...]]


def addresses(host: str, port: int) -> list[Address]:
    """Resolve ``host`` to the addresses that are then connected to; OSError if there are none.

    This is the one place between a name and a connection, so no second look-up can change the
    address. A name with one forbidden address is forbidden altogether (see :mod:`.hosts`).
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        hosts.check(host, port, str(address[0]))
    return [(family, address) for family, _, _, _, address in found]


def connect(candidates: list[Address], clock: Clock) -> socket.socket:
    """Connect to the first address that accepts; OSError if none does in time."""
    failure: OSError = OSError("the name has no address")
    for tried, (family, address) in enumerate(candidates):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # An address that swallows packets must leave time for the next one.
            sock.settimeout(clock.connect_left() / (len(candidates) - tried))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
    raise failure


def is_readable(sock: socket.socket) -> bool:
    """Tell whether an idle connection has something to read, or its end."""
    if sock.fileno() < 0:
        return True
    # select() cannot look at descriptors above 1023.
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
