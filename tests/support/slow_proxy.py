"""A TCP proxy on the loopback that stops passing bytes on after so many of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 16384


class SlowProxy:
    """Passes on what a server says until ``quick`` bytes are through; then it waits."""

    def __init__(self, server_port: int, quick: int) -> None:
        self.server_port = server_port
        self.left = quick
        self.waits = threading.Event()
        self.released = threading.Event()

    def attend(self, client: socket.socket) -> None:
        """Connect a client to the server, until one of them hangs up."""
        with client, socket.create_connection(("127.0.0.1", self.server_port)) as server:
            asking = threading.Thread(target=_pass_on, args=(client, server), daemon=True)
            asking.start()
            with suppress(OSError):
                while piece := server.recv(_PIECE):
                    self.left -= len(piece)
                    if self.left < 0:
                        self.waits.set()
                        self.released.wait()
                    client.sendall(piece)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextmanager
def slow_proxy(server_port: int, quick: int) -> Iterator[tuple[int, SlowProxy]]:
    """Run such a proxy; give its port and the proxy."""
    proxy = SlowProxy(server_port, quick)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=proxy.attend, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], proxy
    finally:
        proxy.released.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
