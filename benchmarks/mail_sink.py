"""An SMTP server that takes everything at once, a thread a connection.

Run it by: python benchmarks/mail_sink.py PORT.

``STAT`` answers how many mails came, and when (monotonic seconds) the first of them began; ``RSET
ALL`` forgets.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

TOLD = b"250-sink\r\n250-SIZE 50000000\r\n250-PIPELINING\r\n250 8BITMIME\r\n"


class Count:
    """What came, and when."""

    def __init__(self) -> None:
        self.mails = 0
        self.first = 0.0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A mail begins."""
        if not self.first:
            self.first = time.monotonic()

    def end(self) -> None:
        """A mail has ended."""
        with self._lock:
            self.mails += 1

    def said(self) -> bytes:
        """Write it down."""
        return f"250 {self.mails} {self.first}\r\n".encode()


def serve(connection: socket.socket, count: Count) -> None:
    """Talk to one client."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    file = connection.makefile("rb", 1 << 18)
    connection.sendall(b"220 sink\r\n")
    while line := file.readline():
        verb = line[:4].upper()
        if verb == b"DATA":
            connection.sendall(b"354 go on\r\n")
            while file.readline() != b".\r\n":
                pass
            count.end()
        elif verb == b"MAIL":
            count.begin()
        elif line.upper() == b"RSET ALL\r\n":
            count.__init__()  # type: ignore[misc]
        elif verb == b"QUIT":
            connection.sendall(b"221 bye\r\n")
            return
        connection.sendall(
            count.said()
            if verb == b"STAT"
            else TOLD
            if verb in (b"EHLO", b"HELO")
            else b"250 ok\r\n"
        )


def main() -> None:
    """Accept for ever."""
    count = Count()
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=200) as door:
        while True:
            connection, _ = door.accept()
            threading.Thread(target=serve, args=(connection, count), daemon=True).start()


if __name__ == "__main__":
    main()
