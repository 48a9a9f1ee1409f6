"""Mail servers on the loopback: aiosmtpd, and scripted ones that misbehave on order."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "ann", "Pässwörd-of-a-test"


def certificate(
    folder: Path, name: str = "localhost", days: int = 1
) -> tuple[Path, ssl.SSLContext]:
    """Make a self-signed certificate; return its file, and a context for a server that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=2))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown = folder / f"{name}-{days}.pem"
    shown.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    secret = folder / f"{name}-{days}.key"
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown, secret)
    return shown, context


class Post:
    """What a server of aiosmtpd was given; ``refuse`` maps addresses to the replies they get."""

    def __init__(self, refuse: Mapping[str, str] = {}, extensions: Sequence[str] = ()) -> None:
        self.refuse = refuse
        self.extensions = extensions
        self.mails: list[tuple[str, list[str], bytes]] = []
        self.options: list[list[str]] = []
        self.logins: list[Any] = []
        self.connections: set[Any] = set()

    async def handle_EHLO(
        self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections.add(session.peer)
        return [responses[0], *(f"250-{one}" for one in self.extensions), *responses[1:]]

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        self.options.append(envelope.mail_options)
        self.logins.append(getattr(session.auth_data, "login", None))
        return "250 2.0.0 queued as 4711"


class SlowPost(Post):
    """The same, but after so many mails it answers no more until it is released.

    Of those it keeps waiting it has taken every other one; the rest it never takes.
    """

    def __init__(self, quick: int, extensions: Sequence[str] = ()) -> None:
        super().__init__(extensions=extensions)
        self.quick = quick
        self.released = False
        self.waiting = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.released or len(self.mails) < self.quick:
            return await super().handle_DATA(server, session, envelope)
        self.waiting += 1
        if self.waiting % 2:
            await super().handle_DATA(server, session, envelope)
        # Until the client is gone, which cancels this.
        await asyncio.Event().wait()
        raise AssertionError("nobody sets that event")


def _authenticate(
    _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (
        USER.encode(),
        PASSWORD.encode(),
    )
    # handled=True would leave the client without a reply.
    return AuthResult(success=right, handled=False, auth_data=data)


@contextmanager
def sink(post: Post, **options: Any) -> Iterator[int]:
    """Run aiosmtpd with ``post`` as its handler; give the port."""
    tls = options.pop("tls", None)
    login: dict[str, Any] = (
        {"authenticator": _authenticate, "auth_require_tls": False}
        if options.pop("login", False)
        else {}
    )

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    class Made(Controller):
        def factory(self) -> Server:
            return Server(self.handler, **login, **options)

        def _create_server(self) -> Any:
            return self.loop.create_server(
                self._factory_invoker, sock=listener, ssl=self.ssl_context
            )

    controller = Made(post, hostname="127.0.0.1", port=port, ssl_context=tls, ready_timeout=60)
    controller.start()
    post.connections.clear()
    try:
        yield port
    finally:
        controller.stop()


@contextmanager
def mailboxes(certificate: Path) -> Iterator[int]:
    """Run pymap, an IMAP server with STARTTLS whose user has a password of its own.

    Give the port.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    tls = ["--cert", str(certificate), "--key", str(certificate.with_suffix(".key"))]
    program = str(Path(sys.executable).with_name("pymap"))
    process = subprocess.Popen(
        [program, "--host", "127.0.0.1", "--port", str(number), *tls, "dict"],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(1200):
            try:
                socket.create_connection(("127.0.0.1", number)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield number
    finally:
        process.kill()
        process.wait()


Talk = Callable[[socket.socket], None]


@contextmanager
def scripted(talk: Talk) -> Iterator[int]:
    """Run ``talk`` in a thread for every connection that is made; give the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError):
            talk(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_.append(connection)
            threads.append(threading.Thread(target=one, args=[connection], daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(10)
        for connection in open_:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)


def line_of(connection: socket.socket) -> bytes:
    """Read a line, byte by byte, so that nothing is taken that TLS or a literal needs."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise EOFError
        line += byte
    return line


def until_closed(connection: socket.socket) -> None:
    """Say nothing until the other side hangs up."""
    while connection.recv(65536):
        pass
