"""The connections below the HTTP client: every socket operation gets what is left of one deadline.

The clock of a call also remembers whether a byte of the request may have left, which is the whole
difference between *not sent* and *unknown*.
"""

from __future__ import annotations

import functools
import os
import select
import socket
import ssl
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore
import httpx

# Shorter than the 5 s after which common servers drop an idle connection: a request that crosses
# with the server's close could not be told from one that was carried out.
_KEEPALIVE = 4.0

# Failures that say by their type that nothing left, for transports that do not use our clock.
UNSENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.UnsupportedProtocol,
)
# Not `Exception`: a job's time limit arrives as an exception too, and must pass.
TROUBLE = (
    httpx.TransportError,
    httpx.StreamError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.PoolTimeout,
    httpcore.UnsupportedProtocol,
    OSError,
    ValueError,
)


class Clock:
    """The time left of the call a thread is making, and whether a byte of it may have left.

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


class Line:
    """A thread's own transport and clock."""

    def __init__(self, transport: httpx.BaseTransport | None) -> None:
        self.pid = os.getpid()
        self.clock = Clock()
        self.network = transport is None
        self.transport = transport or _Network(self.clock)
        if transport is None:
            closing = weakref.finalize(self, _close, self.transport, self.pid)
            # At the end of the process other threads may still be talking.
            closing.atexit = False


def _close(transport: httpx.BaseTransport, pid: int) -> None:
    # In the child of a fork another thread's pool may be locked for ever.
    if os.getpid() == pid:
        transport.close()


class _Network(httpx.BaseTransport):
    def __init__(self, clock: Clock) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls(), keepalive_expiry=_KEEPALIVE, network_backend=_Backend(clock)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.content,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


@functools.cache
def _tls() -> ssl.SSLContext:
    # Loading the certificates takes some 20 ms: once a process, not once a connection.
    return httpx.create_ssl_context()


class _Backend(httpcore.NetworkBackend):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            return _Stream(_dial(addresses(host, port), self._clock), self._clock)
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(str(exc)) from exc
        except (OSError, UnicodeError) as exc:
            raise httpcore.ConnectError(str(exc)) from exc


Address = tuple[socket.AddressFamily, tuple[Any, ...]]


def addresses(host: str, port: int) -> list[Address]:
    """Resolve ``host`` to the very addresses that are then dialled; OSError if there are none.

    This is the one place between a name and a connection: a rule about which addresses may be
    called belongs here, where no second look-up can change the answer.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _dial(candidates: list[Address], clock: Clock) -> socket.socket:
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


class _Stream(httpcore.NetworkStream):
    """A socket whose every operation gets only the time that is left of the call."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock = sock
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            self._sock.settimeout(self._clock.left())
            return self._sock.recv(max_bytes)
        except TimeoutError as exc:
            raise httpcore.ReadTimeout(str(exc)) from exc
        except OSError as exc:
            raise httpcore.ReadError(str(exc)) from exc

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._clock.wrote = self._clock.wrote or bool(buffer)
        view = memoryview(buffer)
        try:
            while view:
                self._sock.settimeout(self._clock.left())
                view = view[self._sock.send(view) :]
        except TimeoutError as exc:
            raise httpcore.WriteTimeout(str(exc)) from exc
        except OSError as exc:
            raise httpcore.WriteError(str(exc)) from exc

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        try:
            self._sock.settimeout(self._clock.connect_left())
            return _Stream(ssl_context.wrap_socket(self._sock, server_hostname=server_hostname), self._clock)
        except TimeoutError as exc:
            self.close()
            raise httpcore.ConnectTimeout(str(exc)) from exc
        except (OSError, ValueError) as exc:
            self.close()
            raise httpcore.ConnectError(str(exc)) from exc

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
        if info == "is_readable":
            return _readable(self._sock)
        return self._sock if info == "socket" else None


def _readable(sock: socket.socket) -> bool:
    # An idle connection with something to read was closed by the server. poll() and not select(),
    # which cannot look at descriptors above 1023.
    if sock.fileno() < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
