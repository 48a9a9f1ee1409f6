"""A connection for the line protocols (SMTP, IMAP), with one deadline over all of it, and caps.

The standard library's timeouts are per socket operation, and its replies have no cap: a server that
sends one byte at a time, or never stops, would hold a worker and its memory.
"""

from __future__ import annotations

import functools
import os
import socket
import ssl

from . import sockets
from .sockets import Clock

_READ_SIZE = 65536


class Broken(OSError):
    """The server closed the connection, or said what the protocol does not allow."""


class Wire:
    """A connection to ``host``; every operation gets only what is left of ``clock``.

    Every method raises OSError, which includes TLS failures, timeouts and :class:`Broken`.
    """

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        self.host = host
        self.clock = clock
        self._buffer = bytearray()
        self._allowance = _READ_SIZE
        try:
            self._sock = sockets.connect(sockets.addresses(host, port), clock)
        except (UnicodeError, ValueError, OverflowError) as exc:
            raise Broken(f"the name or port of the server is unusable ({exc})") from None

    def start_tls(self) -> None:
        """Continue in TLS, verified against the host's name; SSL_CERT_FILE names an authority."""
        if self._buffer:
            # An attacker in between may have added it, to be taken for what is said inside of TLS
            # (CVE-2011-0411, CVE-2021-33515).
            raise Broken(
                "the server said more than its reply before TLS began; somebody may be in between"
            )
        context = _tls(os.environ.get("SSL_CERT_FILE"))
        self._sock.settimeout(self.clock.connect_left())
        try:
            self._sock = context.wrap_socket(self._sock, server_hostname=self.host)
        except ValueError as exc:
            raise Broken(f"the name of the server is unusable ({exc})") from None

    def allow(self, size: int) -> None:
        """Let the server send ``size`` bytes from now on; the last allowance ends."""
        self._allowance = size

    def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        view = memoryview(data)
        while view:
            self._sock.settimeout(self.clock.left())
            view = view[self._sock.send(view) :]

    def readline(self) -> bytes:
        """Return the next line, with its line end."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            self._fill()
        return self._take(end + 1)

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes; memory is taken only for what has come."""
        if size > self._allowance + len(self._buffer):
            raise Broken(f"the server announced {size} bytes, which is more than is read")
        while len(self._buffer) < size:
            self._fill()
        return self._take(size)

    def is_quiet(self) -> bool:
        """Tell whether the server has neither left nor said anything since its last reply."""
        return not self._buffer and not sockets.is_readable(self._sock)

    def local_address(self) -> str:
        """Return our address on this connection as SMTP writes it (RFC 5321 §4.1.3)."""
        address = self._sock.getsockname()[0]
        return f"[IPv6:{address}]" if self._sock.family == socket.AF_INET6 else f"[{address}]"

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _fill(self) -> None:
        self._sock.settimeout(self.clock.left())
        data = self._sock.recv(_READ_SIZE)
        if not data:
            raise Broken("the server closed the connection")
        self._allowance -= len(data)
        if self._allowance < 0:
            raise Broken("the server does not stop talking")
        self._buffer += data

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


@functools.cache
def _tls(cafile: str | None) -> ssl.SSLContext:
    # Loading the certificates takes some 20 ms: once a process, not once a connection.
    return ssl.create_default_context(cafile=cafile)
