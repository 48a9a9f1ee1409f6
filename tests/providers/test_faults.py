"""Faults of providers, row by row: how a request ends, when, and with how much memory."""

from __future__ import annotations

import gzip
import select
import socket
import ssl
import struct
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from flask_communication.errors import NotSent, OutcomeUnknown, ProviderError, Refused
from flask_communication.providers.base import Accepted, OutboundSMS
from flask_communication.providers.remote import RemoteProvider
from tests.support.loopback import (
    Behaviour,
    answer,
    answering,
    request_of,
    self_signed,
    server,
    until_closed,
)
from tests.support.waiting import bounded

pytestmark = pytest.mark.usefixtures("any_address")

DEADLINE, CONNECT = 1.0, 0.5
GOOD = answer(body=b'{"success": true, "data": {"msg_uuid": "ref-1"}}')
SENT = Accepted("ref-1")

# How a call ends: an exception's class, or what is returned; and seconds that a Retry-After gives.
Row = tuple[Behaviour, type[ProviderError] | Accepted]


def then(*steps: bytes | float) -> Behaviour:
    """Read the request, then write and wait as told."""

    def behave(connection: socket.socket) -> None:
        request_of(connection)
        for step in steps:
            if isinstance(step, bytes):
                connection.sendall(step)
            else:
                time.sleep(step)

    return behave


def hang(connection: socket.socket) -> None:
    """Read the request, and never answer it."""
    request_of(connection)
    until_closed(connection)


def over_and_over(piece: bytes, pause: float = 0.0, first: bytes = b"") -> Behaviour:
    """Never stop."""

    def behave(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(first)
        # Hanging up ends it.
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return behave


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def reset_before_it_reads(connection: socket.socket) -> None:
    # Once there is something to read, or the reset could come before anything was sent.
    select.select([connection], [], [], 5)
    reset(connection)


def reset_after_the_request(connection: socket.socket) -> None:
    request_of(connection)
    reset(connection)


def body(text: bytes, *headers: str, status: str = "200 OK") -> Behaviour:
    return answering(answer(status, text, *headers))


def raw(text: bytes) -> Behaviour:
    return then(text)


def ref(said: bytes) -> Behaviour:
    return body(b'{"success": true, "data": {"msg_uuid": ' + said + b"}}")


HEAD = b"HTTP/1.1 200 OK\r\n"
BOMB = b"\0" * 50_000_000
ROWS: dict[str, Row] = {
    # The connection.
    "it resets before it reads": (reset_before_it_reads, OutcomeUnknown),
    "it resets after the request": (reset_after_the_request, OutcomeUnknown),
    "it closes after the request": (then(), OutcomeUnknown),
    "it accepts and hangs": (hang, OutcomeUnknown),
    "it never reads": (until_closed, OutcomeUnknown),
    "it drips its headers": (over_and_over(b"X", 0.5, HEAD), OutcomeUnknown),
    "it drips its body": (
        over_and_over(b" ", 0.5, HEAD + b"Content-Length: 99\r\n\r\n"),
        OutcomeUnknown,
    ),
    # What is no answer.
    "it says 100 for ever": (over_and_over(b"HTTP/1.1 100 Continue\r\n\r\n"), OutcomeUnknown),
    "it says 103 for ever": (over_and_over(b"HTTP/1.1 103 Early Hints\r\n\r\n"), OutcomeUnknown),
    "it says 103, and then answers": (
        then(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", GOOD),
        SENT,
    ),
    "it says 100, and then answers": (then(b"HTTP/1.1 100 Continue\r\n\r\n", 0.1, GOOD), SENT),
    "it switches protocols": (raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), OutcomeUnknown),
    "its headers never end": (over_and_over(b"X-A: b\r\n", 0, HEAD), OutcomeUnknown),
    "a header of it never ends": (over_and_over(b"x" * 1000, 0, HEAD + b"X: "), OutcomeUnknown),
    "it speaks HTTP/0.9": (raw(b"<html>Hello"), OutcomeUnknown),
    "it speaks HTTP/2": (raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"), OutcomeUnknown),
    "its status is no number": (raw(b"HTTP/1.1 OK 200\r\n\r\n"), OutcomeUnknown),
    "its status has four digits": (raw(b"HTTP/1.1 2000 OK\r\n\r\n"), OutcomeUnknown),
    "it speaks in zeros": (raw(b"\0" * 1000), OutcomeUnknown),
    "it speaks HTTP/1.0": (raw(b"HTTP/1.0 200 OK\r\n\r\n" + GOOD.partition(b"\r\n\r\n")[2]), SENT),
    # Bodies.
    "an empty 200": (body(b""), OutcomeUnknown),
    "a 204": (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), OutcomeUnknown),
    "HTML": (
        body(b"<html>Welcome to our hotel's network", "Content-Type: text/html"),
        OutcomeUnknown,
    ),
    "an empty object": (body(b"{}"), OutcomeUnknown),
    "an array": (body(b"[]"), OutcomeUnknown),
    "success without data": (body(b'{"success": true}'), OutcomeUnknown),
    "success that is a word": (
        body(b'{"success": "true", "data": {"msg_uuid": "1"}}'),
        OutcomeUnknown,
    ),
    "garbage": (body(b"{]"), OutcomeUnknown),
    "JSON 100,000 deep": (body(b"[" * 100_000), OutcomeUnknown),
    "JSON 100,000 deep, closed": (body(b'{"a":' * 20_000 + b"1" + b"}" * 20_000), OutcomeUnknown),
    "NaN": (body(b'{"success": true, "data": {"msg_uuid": "1", "x": NaN}}'), OutcomeUnknown),
    "a number of 100,000 digits": (
        body(b'{"success": true, "data": ' + b"9" * 100_000 + b"}"),
        OutcomeUnknown,
    ),
    "a name twice": (body(b'{"success": true, "success": false, "data": {}}'), OutcomeUnknown),
    "UTF-16": (body('{"success": true}'.encode("utf-16")), OutcomeUnknown),
    "a reference that is null": (ref(b"null"), OutcomeUnknown),
    "a reference that is empty": (ref(b'""'), OutcomeUnknown),
    "a reference of 10 kB": (ref(b'"' + b"x" * 10_000 + b'"'), OutcomeUnknown),
    "a reference with a lone surrogate": (ref(b'"\\ud800"'), OutcomeUnknown),
    "a reference with a line break": (ref(b'"a\\r\\nb"'), OutcomeUnknown),
    "a reference with a zero": (ref(b'"a\\u0000b"'), OutcomeUnknown),
    "a body without end": (over_and_over(b"x" * 65536, 0, HEAD + b"\r\n"), OutcomeUnknown),
    "300 MB, announced": (
        over_and_over(b"x" * 65536, 0, HEAD + b"Content-Length: 300000000\r\n\r\n"),
        OutcomeUnknown,
    ),
    "a gzip bomb": (body(gzip.compress(BOMB), "Content-Encoding: gzip"), OutcomeUnknown),
    "a deflate bomb": (body(zlib.compress(BOMB), "Content-Encoding: deflate"), OutcomeUnknown),
    "an unknown coding": (body(b"{}", "Content-Encoding: br"), OutcomeUnknown),
    "a length that is too long": (raw(HEAD + b"Content-Length: 999\r\n\r\n{}"), OutcomeUnknown),
    "a length that is too short": (raw(HEAD + b"Content-Length: 1\r\n\r\n{}"), OutcomeUnknown),
    "a negative length": (raw(HEAD + b"Content-Length: -1\r\n\r\n{}"), OutcomeUnknown),
    "a length that is a word": (raw(HEAD + b"Content-Length: many\r\n\r\n{}"), OutcomeUnknown),
    "chunks that break off": (
        raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"),
        OutcomeUnknown,
    ),
    "chunks of no size": (
        raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n"),
        OutcomeUnknown,
    ),
    "chunks without end": (
        over_and_over(
            b"1000\r\n" + b"x" * 4096 + b"\r\n", 0, HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        ),
        OutcomeUnknown,
    ),
    # Statuses.
    **{
        f"a redirect by {status}": (
            body(b"", "Location: http://127.0.0.1:9/elsewhere", status=f"{status} Moved"),
            OutcomeUnknown,
        )
        for status in (300, 301, 302, 303, 304, 307, 308)
    },
    **{
        f"status {status}": (body(b'{"msg": "no"}', status=f"{status} No"), Refused)
        for status in (400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 451, 499)
    },
    "status 408": (body(b"{}", status="408 Slow"), OutcomeUnknown),
    "status 425": (body(b"{}", status="425 Early"), NotSent),
    "status 429": (body(b"{}", status="429 Slow down"), NotSent),
    "status 503 with patience": (body(b"{}", "Retry-After: 5", status="503 Busy"), NotSent),
    **{
        f"status {status}": (body(b"{}", status=f"{status} Oh"), OutcomeUnknown)
        for status in (500, 501, 502, 503, 504, 505, 507, 511, 520, 529, 599)
    },
    "a failure that is told with a 200": (body(b'{"success": false, "msg": "no credit"}'), Refused),
}


def sms() -> OutboundSMS:
    return OutboundSMS("key-1", "+919999911111", "Hello")


def provider(url: str) -> RemoteProvider:
    found = RemoteProvider("fault", url)
    found._http.deadline, found._http.connect = DEADLINE, CONNECT
    return found


def assert_ends(url: str, expected: type[ProviderError] | Accepted) -> None:
    with bounded(DEADLINE):
        if isinstance(expected, Accepted):
            assert provider(url).send_sms(sms(), {}) == expected
            return
        with pytest.raises(ProviderError) as caught:
            provider(url).send_sms(sms(), {})
        assert type(caught.value) is expected, caught.value
        assert caught.value.reason.isprintable()
        assert len(caught.value.reason) < 500


@pytest.mark.parametrize("name", ROWS)
def test_a_provider_at_fault_ends_the_request_as_it_should(name: str) -> None:
    behave, expected = ROWS[name]
    with server(behave) as url:
        assert_ends(url, expected)


# --- Before the request
# ------------------------------------------------------------------------------


def test_a_refused_connection_is_not_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert_ends(f"http://127.0.0.1:{free.getsockname()[1]}/", NotSent)


def test_a_name_of_nobody_is_not_sent() -> None:
    assert_ends("http://nobody.invalid/", NotSent)


def test_a_black_hole_is_not_sent() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        assert_ends(f"http://127.0.0.1:{address[1]}/", NotSent)
        for one in waiting:
            one.close()


def test_a_server_that_speaks_no_tls_is_not_sent() -> None:
    with server(then(GOOD)) as url:
        assert_ends(url.replace("http:", "https:"), NotSent)


@pytest.mark.parametrize(
    ("host", "days", "trusted"),
    [("localhost", 1, False), ("localhost", -1, True), ("other.example", 1, True)],
    ids=["self-signed", "expired", "of another name"],
)
def test_a_certificate_that_is_wrong_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, days: int, trusted: bool
) -> None:
    certificate = self_signed(tmp_path, host, days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    seen: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        with suppress(OSError):
            seen.append(context.wrap_socket(connection, server_side=True).recv(100))

    if trusted:
        trusting(monkeypatch, certificate)
    with server(behave) as url:
        assert_ends(url.replace("http://127.0.0.1", "https://localhost"), NotSent)
    assert b"".join(seen) == b""


def trusting(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    from flask_communication.providers.net import sockets

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    sockets._tls.cache_clear()
    monkeypatch.setattr(sockets, "_tls", sockets._tls.__wrapped__)


# --- Patience
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("1", 1.0),
        ("-1", None),
        ("1000000000", 3600.0),
        ("abc", None),
        (None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 3600.0),
    ],
)
def test_a_provider_asks_for_patience(said: str | None, seconds: float | None) -> None:
    headers = [] if said is None else [f"Retry-After: {said}"]
    with (
        server(body(b"{}", *headers, status="429 Slow down")) as url,
        pytest.raises(NotSent) as caught,
    ):
        provider(url).send_sms(sms(), {})
    assert caught.value.retry_after == seconds


# --- From one call to the next
# -----------------------------------------------------------------------


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_second_answer_is_never_taken_for_the_next_ones(when: str) -> None:
    received, written = threading.Event(), threading.Event()
    other = answer(body=b'{"success": true, "data": {"msg_uuid": "smuggled"}}')
    own = answer(body=b'{"success": true, "data": {"msg_uuid": "ref-2"}}')

    def behave(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(GOOD + other if when == "at once" else GOOD)
        if when == "later":
            received.wait(60)
            connection.sendall(other)
        written.set()
        request_of(connection)
        connection.sendall(own)

    with server(behave) as url:
        calling = provider(url)
        assert calling.send_sms(sms(), {}) == SENT
        received.set()
        assert written.wait(60)
        # By the same connection, or by another one whose first call it is.
        assert calling.send_sms(sms(), {}).ref in ("ref-1", "ref-2")


def test_a_connection_closed_between_requests_sends_each_once() -> None:
    seen: list[bytes] = []
    closed = threading.Semaphore(0)

    def behave(connection: socket.socket) -> None:
        seen.append(request_of(connection))
        connection.sendall(GOOD)
        connection.close()
        closed.release()

    with server(behave) as url:
        calling = provider(url)
        for _ in range(3):
            assert calling.send_sms(sms(), {}) == SENT
            assert closed.acquire(timeout=60)
    assert len(seen) == 3


def test_after_a_fault_the_next_request_works() -> None:
    broken = [raw(HEAD + b"Content-Length: 999\r\n\r\n{}"), reset_after_the_request, then(GOOD)]
    with server(lambda connection: broken.pop(0)(connection)) as url:
        calling = provider(url)
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                calling.send_sms(sms(), {})
        assert calling.send_sms(sms(), {}) == SENT
