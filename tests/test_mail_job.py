"""Email on real parts: 500 mails with files, `rq worker`, PostgreSQL, Redis and aiosmtpd; a worker killed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from email import message_from_bytes
from pathlib import Path

import pytest
from flask import Flask
from mail_servers import Post, sink
from test_main_job import BIN, HERE, count_statuses, kill, running, wait_for

from flask_communication import Email, configs
from flask_communication.state import state_of

MAILS = 500
AT_ONCE = 10
SEED = 20261124
# Shorter than the true 60, so that the mails of a dead worker are found soon.
LEASE = 12.0


@pytest.mark.timeout(200)
def test_every_mail_arrives_once_and_intact(
    make_app: Callable[..., Flask], upgraded_postgresql_url: str, redis_url: str, tmp_path: Path
) -> None:
    print("seed", SEED)
    files = {f"p{number}@x.example": _some_bytes(number) for number in range(MAILS)}
    app = make_app(upgraded_postgresql_url, COMMUNICATION_REDIS_URL=redis_url)
    post, log = Post(extensions=["PIPELINING"]), tmp_path / "log"
    statuses = count_statuses(app)
    with sink(post) as port, ExitStack() as stack:
        settings = {"host": "127.0.0.1", "port": port, "security": "none", "sender": "shop@shop.example"}
        configs.create(state_of(app), {"type": "email", "provider_pkg_name": "smtp", "config": settings})
        work, environ = [BIN / "rq", "worker", "--url", redis_url, "communication"], _environ(app, redis_url)
        worker = stack.enter_context(running(work, environ, log))
        with app.app_context():
            for address, content in files.items():
                email = Email(address, f"Your file, {address}", "It is attached.")
                email.attach(content, filename="file.bin", content_type="application/octet-stream")
                email.send()
        wait_for(lambda: len(post.mails) > MAILS // 4, 60, "the first quarter")
        kill(worker)
        assert len(post.mails) < MAILS, "the worker was to be killed under way"
        stack.enter_context(running(work, environ, log))
        try:
            wait_for(lambda: set(statuses()) <= {"sent", "unknown"}, 90, "the rest")
            in_doubt = statuses().get("unknown", 0)
            assert in_doubt <= AT_ONCE
            _decide(app, {to for _, recipients, _ in post.mails for to in recipients})
            wait_for(lambda: statuses() == {"sent": MAILS}, 30, "what was decided")
        finally:
            print(statuses(), log.read_text()[-3000:])
    assert Counter(to for _, recipients, _ in post.mails for to in recipients) == dict.fromkeys(files, 1)
    arrived = {recipients[0]: _hash(_attached(raw)) for _, recipients, raw in post.mails}
    assert arrived == {address: _hash(content) for address, content in files.items()}


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
        "SHOP_LEASE": str(LEASE),
        "PYTHONPATH": str(HERE.parent),
    }
