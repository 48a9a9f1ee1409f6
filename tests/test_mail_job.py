"""Email on real parts: `rq worker`, PostgreSQL, Redis, an SMTP and an IMAP server.

Workers are killed.
"""

from __future__ import annotations

import hashlib
import imaplib
import random
import re
import socket
import ssl
from collections import Counter
from contextlib import ExitStack
from email import message_from_bytes
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

from flask_communication import Email
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.email import incoming
from flask_communication.providers.base import InboundEmail
from tests.support.apps import MakeApp, count_statuses, make_due
from tests.support.hostile_mail import corpus
from tests.support.mail_servers import SlowPost, certificate, mailboxes, sink
from tests.support.processes import BIN, HOME, kill, running
from tests.support.slow_proxy import slow_proxy
from tests.support.waiting import wait_until

MAILS = 500
INBOX = 2000
AT_ONCE = 10
SEED = 20261124
# imaplib sends every one of them as CR LF.
LINE_END = re.compile(rb"\r\n|\r|\n")


@pytest.mark.timeout(400)
def test_every_mail_arrives_once_and_intact(
    make_app: MakeApp, upgraded_postgresql_url: str, redis_url: str, tmp_path: Path
) -> None:
    print("seed", SEED)
    files = {f"p{number}@x.example": _some_bytes(number) for number in range(MAILS)}
    app = make_app(upgraded_postgresql_url, COMMUNICATION_REDIS_URL=redis_url)
    post, log = SlowPost(quick=MAILS // 4, extensions=["PIPELINING"]), tmp_path / "log"
    with sink(post) as port, ExitStack() as stack:
        settings = {
            "host": "127.0.0.1",
            "port": port,
            "security": "none",
            "sender": "shop@shop.example",
        }
        store.create(
            state_of(app), {"type": "email", "provider_pkg_name": "smtp", "config": settings}
        )
        work: list[str | Path] = [BIN / "rq", "worker", "--url", redis_url, "communication"]
        environ = _environ(app, redis_url)
        worker = stack.enter_context(running(work, environ, log))
        with app.app_context():
            for address, content in files.items():
                email = Email(address, f"Your file, {address}", "It is attached.")
                email.attach(content, filename="file.bin", content_type="application/octet-stream")
                email.send()
        # The worker is killed while the server keeps several of its mails waiting.
        wait_until(lambda: post.waiting >= AT_ONCE // 2, "the first quarter")
        kill(worker)
        post.released = True
        # The lease of the dead worker ends now, and not in a minute.
        make_due(app)
        stack.enter_context(running(work, environ, log))
        try:
            wait_until(lambda: set(count_statuses(app)) <= {"sent", "unknown"}, "the rest", 200)
            assert AT_ONCE // 2 <= count_statuses(app)["unknown"] <= AT_ONCE
            _decide(app, {to for _, recipients, _ in post.mails for to in recipients})
            wait_until(lambda: count_statuses(app) == {"sent": MAILS}, "what was decided")
        finally:
            print(count_statuses(app), log.read_text()[-3000:])
    assert Counter(to for _, recipients, _ in post.mails for to in recipients) == dict.fromkeys(
        files, 1
    )
    arrived = {recipients[0]: _hash(_attached(raw)) for _, recipients, raw in post.mails}
    assert arrived == {address: _hash(content) for address, content in files.items()}


@pytest.mark.timeout(400)
def test_an_inbox_whose_reader_was_killed_holds_each_mail_once(
    make_app: MakeApp, upgraded_postgresql_url: str, redis_url: str, tmp_path: Path
) -> None:
    app = make_app(upgraded_postgresql_url, COMMUNICATION_REDIS_URL=redis_url)
    log = tmp_path / "log"
    shown, _ = certificate(tmp_path)
    with ExitStack() as stack:
        server = stack.enter_context(mailboxes(shown))
        put = _fill(server, shown)
        # The mailbox stops in the middle, until its reader is dead.
        quick = sum(map(len, put)) // 2
        port, proxy = stack.enter_context(slow_proxy(server, quick))
        settings = {
            "host": "127.0.0.1",
            "imap_host": "localhost",
            "imap_port": port,
            "sender": "a@x.example",
        }
        settings |= {
            "imap_security": "starttls",
            "imap_username": "demouser",
            "imap_password": "demopass",
        }
        store.create(
            state_of(app), {"type": "email", "provider_pkg_name": "smtp", "config": settings}
        )
        environ = {**_environ(app, redis_url), "SSL_CERT_FILE": str(shown)}
        read: list[str | Path] = [BIN / "flask", "communication", "sync"]
        with running(read, environ, log) as reader:
            try:
                wait_until(proxy.waits.is_set, "the first half", 200)
                wait_until(lambda: _received(app) > 0, "the first page")
            finally:
                print(log.read_text()[-3000:])
            kill(reader)
        proxy.released.set()
        assert 0 < _received(app) < len(put)
        for _ in range(2):
            with running(read, environ, log) as reader:
                assert reader.wait(180) == 0, log.read_text()[-3000:]
            assert _received(app) == len(put)
    _assert_each_once(app, put)


def _assert_each_once(app: Flask, put: set[bytes]) -> None:
    query = (
        "SELECT f.content, e.problem FROM communication_mail AS e JOIN communication_file AS f"
        " ON f.sha256 = e.raw_sha256 JOIN communication_message AS m ON m.id = e.message_id"
        " WHERE m.direction = 'in'"
    )
    with state_of(app).database.read() as connection:
        rows = connection.execute(text(query)).all()
    assert Counter(_hash(row.content) for row in rows) == dict.fromkeys(map(_hash, put), 1)
    problems = {_hash(row.content): row.problem for row in rows}
    assert problems == {
        _hash(raw): incoming.parse(1, InboundEmail("1", raw)).problem for raw in put
    }
    assert sum(1 for one in problems.values() if one) > 50


def _fill(port: int, shown: Path) -> set[bytes]:
    """Put mails into the mailbox, hostile ones among them.

    Return the different ones that it holds.
    """
    # The largest of them are too much for that server.
    hostile = [raw for _, raw in corpus() if 0 < len(raw) < 200_000]
    good = [f"Subject: good {n}\r\n\r\nHello\r\n".encode() for n in range(INBOX - len(hostile))]
    taken: set[bytes] = set()
    program = _mailbox(port, shown)
    program.store("1:*", "+FLAGS", r"\Deleted")
    program.expunge()
    for raw in [*good[::2], *hostile, *good[1::2]]:
        try:
            if program.append("INBOX", "", None, raw)[0] == "OK":
                taken.add(LINE_END.sub(b"\r\n", raw))
        except imaplib.IMAP4.abort:
            # Some break that server itself.
            program = _mailbox(port, shown)
    assert len(taken) > INBOX - len(hostile) + 200
    # That server keeps one of them without its last byte: what counts is what a mail program is
    # given.
    _, said = _mailbox(port, shown).fetch("1:*", "(BODY.PEEK[])")
    held = {one[1] for one in said if isinstance(one, tuple)}
    assert len(held) == len(taken)
    assert len(held - taken) <= 1
    return held


def _mailbox(port: int, shown: Path) -> imaplib.IMAP4:
    program = imaplib.IMAP4("localhost", port)
    program.starttls(ssl.create_default_context(cafile=str(shown)))
    # imaplib writes a mail in two pieces, which would wait for each other.
    program.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    program.login("demouser", "demopass")
    program.select("INBOX")
    return program


def _received(app: Flask) -> int:
    with state_of(app).database.read() as connection:
        query = "SELECT count(*) FROM communication_message WHERE direction = 'in'"
        return int(connection.execute(text(query)).scalar() or 0)


def _some_bytes(number: int) -> bytes:
    source = random.Random(SEED + number)
    return source.randbytes(source.randrange(1000, 60_000))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _attached(raw: bytes) -> bytes:
    (file,) = [part for part in message_from_bytes(raw).walk() if part.get_filename() == "file.bin"]
    content = file.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


def _decide(app: Flask, arrived: set[str]) -> None:
    """Do what a person does who looks into the log of the mail server."""
    with app.app_context():
        for message in Email.messages(status="unknown").items:
            Email.resolve(message.uuid, "sent" if message.destination in arrived else "resend")


def _environ(app: Flask, redis_url: str) -> dict[str, str]:
    return {
        "FLASK_APP": "tests.processes.shop:create_app",
        "SHOP_DATABASE": app.config["SQLALCHEMY_DATABASE_URI"],
        "SHOP_REDIS": redis_url,
        "SHOP_KEY": app.config["COMMUNICATION_ENCRYPTION_KEYS"][0],
        "SHOP_PROVIDER": "http://127.0.0.1:1",
        "SHOP_CONCURRENCY": str(AT_ONCE),
        "PYTHONPATH": str(HOME),
    }
