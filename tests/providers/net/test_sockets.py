"""The HTTP client against misbehaving servers: each fault, and its outcome."""

from __future__ import annotations

import gzip
import os
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path

import pytest

from flask_communication.errors import NotSent, OutcomeUnknown
from flask_communication.providers.http import Http, classify
from tests.support.loopback import (
    answer,
    answering,
    dripping,
    request_of,
    self_signed,
    server,
    until_closed,
)
from tests.support.waiting import BUSY, ends_within

pytestmark = pytest.mark.usefixtures("any_address")


def test_a_complete_answer_is_returned_whatever_its_status() -> None:
    with server(answering(answer("418 Teapot", b'{"msg":"short"}'))) as url:
        got = Http().post_json(url, {"a": 1})
    assert (got.status, got.json, got.text) == (418, {"msg": "short"}, '{"msg":"short"}')


def test_json_is_posted_with_its_type_and_asks_for_no_compression() -> None:
    seen: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        seen.append(request_of(connection))
        connection.sendall(answer())

    with server(behave) as url:
        Http().post_json(url, {"msg": "é"}, {"Idempotency-Key": "k1"})
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert body == b'{"msg":"\\u00e9"}'
    assert b"content-type: application/json" in head.lower()
    assert b"accept-encoding: identity" in head.lower()
    assert b"idempotency-key: k1" in head.lower()


def test_one_connection_serves_many_requests_of_a_thread() -> None:
    connections: list[int] = []

    def behave(connection: socket.socket) -> None:
        connections.append(1)
        while True:
            request_of(connection)
            connection.sendall(answer())

    http = Http()
    with server(behave) as url:
        for _ in range(5):
            http.post_json(url, {})
    assert len(connections) == 1


def test_threads_do_not_share_a_connection() -> None:
    connections: list[int] = []
    gate = threading.Barrier(3)

    def behave(connection: socket.socket) -> None:
        connections.append(1)
        while True:
            request_of(connection)
            connection.sendall(answer())

    http = Http()
    with server(behave) as url:

        def call() -> None:
            http.post_json(url, {})
            gate.wait(60)
            http.post_json(url, {})

        threads = [threading.Thread(target=copy_context().run, args=[call]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(connections) == 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_a_connection_of_its_own() -> None:
    connections: list[int] = []

    def behave(connection: socket.socket) -> None:
        connections.append(1)
        while True:
            request_of(connection)
            connection.sendall(answer())

    http = Http()
    with server(behave) as url:
        http.post_json(url, {})
        child = os.fork()
        if child == 0:
            ok = False
            with suppress(BaseException):
                ok = http.post_json(url, {}).status == 200
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        http.post_json(url, {})
    assert len(connections) == 2


def test_a_connection_the_server_closed_while_idle_is_not_used_again() -> None:
    closed = threading.Event()

    def behave(connection: socket.socket) -> None:
        answering(answer())(connection)
        connection.close()
        closed.set()

    http = Http()
    with server(behave) as url:
        http.post_json(url, {})
        assert closed.wait(60)
        assert http.post_json(url, {}).status == 200


def test_a_refused_connection_is_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NotSent, match="nothing was sent"):
        Http().post_json(f"http://127.0.0.1:{port}/", {})


@pytest.mark.parametrize(
    "url",
    [
        "http://name.invalid/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://",
        "nonsense",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://" + "a" * 70 + ".example/",
        "http://127.0.0.1:1/\x00",
        "",
    ],
)
def test_an_address_that_leads_nowhere_is_not_sent(url: str) -> None:
    with pytest.raises(NotSent):
        Http(deadline=3, connect=2).post_json(url, {})


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "é", "\x00"])
def test_a_header_that_cannot_be_written_is_not_sent(value: str) -> None:
    seen: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        seen.append(connection.recv(1000))

    with server(behave) as url, pytest.raises(NotSent):
        Http(deadline=2).post_json(url, {}, {"X-Key": value})
    assert b"".join(seen) == b""


def test_a_tls_handshake_that_fails_is_not_sent() -> None:
    with server(answering(answer())) as url, pytest.raises(NotSent):
        Http(deadline=2).post_json(url.replace("http:", "https:"), {})


def test_a_tls_handshake_that_hangs_is_not_sent_and_ends_with_the_connect_time() -> None:
    with server(until_closed) as url, ends_within(1), pytest.raises(NotSent):
        Http(deadline=50, connect=0.4).post_json(url.replace("http:", "https:"), {})


def test_a_queue_that_never_accepts_is_not_sent() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        time.sleep(0.1)
        with pytest.raises(NotSent):
            Http(connect=0.5).post_json(f"http://127.0.0.1:{port}/", {})
        for one in waiting:
            one.close()


def test_a_reset_after_the_request_is_unknown() -> None:
    def behave(connection: socket.socket) -> None:
        request_of(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with server(behave) as url, pytest.raises(OutcomeUnknown, match="look the message up"):
        Http().post_json(url, {})


def test_a_close_without_an_answer_is_unknown() -> None:
    with server(answering(b"")) as url, pytest.raises(OutcomeUnknown):
        Http().post_json(url, {})


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
    ],
    ids=["no HTTP", "short body", "broken chunk", "endless header"],
)
def test_an_answer_that_is_no_http_is_unknown(raw: bytes) -> None:
    with server(answering(raw)) as url, pytest.raises(OutcomeUnknown):
        Http(deadline=2).post_json(url, {})


@pytest.mark.parametrize(
    "raw",
    [
        answer(body=b"x" * 100),
        b"HTTP/1.1 103 Early\r\n\r\n" * 10,
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 200,
    ],
    ids=["body", "endless 1xx", "headers"],
)
def test_a_server_that_drips_is_cut_at_the_deadline(raw: bytes) -> None:
    began = time.monotonic()
    with server(dripping(raw)) as url, pytest.raises(OutcomeUnknown):
        Http(deadline=0.7).post_json(url, {})
    assert 0.6 < time.monotonic() - began < 0.7 + BUSY


def test_a_server_that_hangs_is_cut_at_the_deadline() -> None:
    with server(until_closed) as url, ends_within(1), pytest.raises(OutcomeUnknown):
        Http(deadline=0.4).post_json(url, {})


def test_a_server_that_does_not_read_is_cut_at_the_deadline() -> None:
    with server(until_closed) as url, ends_within(2), pytest.raises(OutcomeUnknown):
        Http(deadline=0.5).post(url, b"x" * 30_000_000, "text/plain")


@pytest.mark.parametrize("length", ["Content-Length: 300000000", "Connection: close"])
def test_a_huge_body_is_capped(length: str) -> None:
    sent: list[int] = []

    def behave(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())
        # One by one: what was sent before the other side hung up counts.
        sent.extend(connection.send(b"[" * 65536) for _ in range(5000))

    with server(behave) as url:
        got = Http(body_cap=100_000).post_json(url, {})
        assert got.json is None
        with pytest.raises(OutcomeUnknown, match="longer than 100000 bytes"):
            classify(got)
        time.sleep(0.1)
    assert sum(sent) < 50_000_000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, identity", "x-evil"])
def test_a_compressed_answer_is_not_unfolded(coding: str) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    raw = answer("200 OK", bomb, f"Content-Encoding: {coding}")
    with server(answering(raw)) as url:
        got = Http().post_json(url, {})
    with pytest.raises(OutcomeUnknown, match="compressed"):
        classify(got)


def test_a_status_counts_even_where_its_body_cannot_be_read() -> None:
    raw = answer("429 Slow", b"\x1f\x8b", "Content-Encoding: gzip")
    with server(answering(raw)) as url, pytest.raises(NotSent):
        classify(Http().post_json(url, {}))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    followed: list[bytes] = []

    def trap(connection: socket.socket) -> None:
        followed.append(connection.recv(10))

    with server(trap) as elsewhere:
        raw = answer(f"{status} Moved", b"", f"Location: {elsewhere}")
        with server(answering(raw)) as url, pytest.raises(OutcomeUnknown, match="never followed"):
            classify(Http().post_json(url, {}))
    assert followed == []


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with server(answering(answer())) as url:
        assert Http().post_json(url, {}).status == 200


def test_a_cookie_is_not_given_back() -> None:
    seen: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        for _ in range(2):
            seen.append(request_of(connection))
            connection.sendall(answer("200 OK", b"{}", "Set-Cookie: a=b"))

    http = Http()
    with server(behave) as url:
        http.post_json(url, {})
        http.post_json(url, {})
    assert b"cookie" not in seen[1].lower()


def test_an_error_names_the_host_and_neither_password_nor_path() -> None:
    with pytest.raises(NotSent) as caught:
        Http(deadline=2).post_json("http://user:CANARY@127.0.0.1:1/CANARY?key=CANARY", {})
    assert "127.0.0.1" in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_a_certificate_nobody_vouches_for_is_not_sent(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    seen: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        seen.append(context.wrap_socket(connection, server_side=True).recv(100))

    with server(behave) as url, pytest.raises(NotSent):
        Http(deadline=2).post_json(url.replace("http://127.0.0.1", "https://localhost"), {})
    assert b"".join(seen) == b""


def test_each_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing but the resolver, which is outside, is replaced.
    with server(answering(answer())) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        two = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 1)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: two)
        assert Http().post_json("http://two.example/", {}).status == 200


def test_head_and_body_leave_together() -> None:
    seen: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(answer())

    with server(behave) as url:
        Http().post(url, b"the body", "text/plain")
    assert seen[0].startswith(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:")
    assert seen[0].endswith(b"\r\n\r\nthe body")


def test_an_answer_that_breaks_off_is_unknown() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"
    with server(answering(raw)) as url, pytest.raises(OutcomeUnknown):
        Http(deadline=3).post_json(url, {})


def test_after_an_answer_cut_short_the_next_request_has_a_connection_of_its_own() -> None:
    connections: list[int] = []

    def behave(connection: socket.socket) -> None:
        connections.append(1)
        request_of(connection)
        connection.sendall(answer(body=b"x" * 200_000 if len(connections) == 1 else b"{}"))
        connection.recv(1)  # until the other side closes it

    with server(behave) as url:
        http = Http(body_cap=10)
        assert http.post_json(url, {}).flaw is not None
        assert http.post_json(url, {}).json == {}
    assert len(connections) == 2
