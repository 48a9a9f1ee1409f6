"""Emails a second through one worker process: of 5 kB, and with a file of 100 kB."""

from __future__ import annotations

import smtplib
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from flask_communication import Email
from flask_communication.configs import store
from flask_communication.configs.state import state_of

from .. import contest
from ..figures import OURS, Figure, alternated, judged
from ..ground import HERE, KEY, SERVER_CPUS, WORKER_CPUS, Ground, free_port, running, until
from ..host import make, prepare
from ..peers import mailing_text
from . import Run

PEERS = {
    "post_office": (
        "django-post-office, batch 500, 10 threads",
        "rows; a stopped run sends its batch again",
    ),
    "mailman": ("Flask-Mailman, one connection", "none: what is in memory is lost"),
    "smtplib": ("smtplib, one connection", "none: what is in memory is lost"),
    "pipelined": ("raw socket, bytes written before", "none at all"),
}
TARGETS = {PEERS["post_office"][0]: ">= 1.3", PEERS["smtplib"][0]: ">= 2.5"}


def measure(run: Run) -> list[Figure]:
    """Compare with the peers, and with the limit."""
    found: list[Figure] = []
    port = free_port()
    with running(run.ground, [sys.executable, str(HERE / "mail_sink.py"), str(port)], SERVER_CPUS):
        until(lambda: _is_there(port))
        for kind in run.databases:
            for what, size, number in (
                ("5 kB", 0, 2000),
                ("5 kB and a file of 100 kB", 100_000, 300),
            ):
                found += _contest(run, kind, port, what, size, run.number(number, number // 2))
    return found


def _contest(run: Run, kind: str, port: int, what: str, size: int, number: int) -> list[Figure]:
    takers: dict[str, Callable[[], float]] = {
        "ours, 50 at once": partial(_ours, run.ground, kind, port, number, size),
        **{
            title: partial(_peer, run.ground, kind, port, number, size, name)
            for name, (title, _) in PEERS.items()
        },
    }
    told = {"ours, 50 at once": OURS, **dict(PEERS.values())}
    runs = alternated(run.turns, takers)
    figures = [
        Figure(f"emails: {what}", name, kind, "/s", taken, told[name])
        for name, taken in runs.items()
    ]
    return judged(figures, TARGETS)


def _peer(ground: Ground, kind: str, port: int, number: int, size: int, name: str) -> float:
    _ask(port, "RSET ALL")
    env = ground.environment(
        BENCH_SMTP=str(port),
        BENCH_DATABASE=ground.database(kind),
        BENCH_MEDIA=str(ground.folder / "media"),
    )
    send = [sys.executable, "-m", "benchmarks.peers.mailing", name, str(number), str(size)]
    pinned = ["taskset", "-c", ",".join(map(str, WORKER_CPUS)), *send]
    done = subprocess.run(pinned, env=env, cwd=ground.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert _ask(port, "STAT")[0] == number
    return number / float(done.stdout.split()[-1])


def _ours(ground: Ground, kind: str, port: int, number: int, size: int) -> float:
    url = ground.database(kind)
    app = make(url, f"{ground.stub}/plain", KEY)
    prepare(app)
    config = {"host": "127.0.0.1", "port": port, "security": "none", "sender": mailing_text.FROM}
    fields = {"type": "email", "provider": "", "provider_pkg_name": "smtp", "is_default": True}
    store.create(state_of(app), fields | {"config": config})
    with app.app_context():
        for first in range(0, number, 500):
            mails = [_email(size) for _ in range(first, min(number, first + 500))]
            Email.send_bulk(mails)
    app.extensions["communication"].database.engine.dispose()
    _ask(port, "RSET ALL")
    env = {"BENCH_DATABASE": url, "BENCH_STUB": f"{ground.stub}/plain", "BENCH_CONCURRENCY": "50"}
    with running(ground, contest.WORKER, WORKER_CPUS, **env):
        until(lambda: _ask(port, "STAT")[0] >= number, every=0.05)
        until(lambda: contest.ours_left(state_of(app).database.engine) == 0, every=0.005)
        seconds = time.monotonic() - _ask(port, "STAT")[1]
    app.extensions["communication"].database.engine.dispose()
    return number / seconds


def _email(size: int) -> Email:
    words = mailing_text
    mail = Email(to=words.TO, subject="Your order", body=words.TEXT, html=words.HTML)
    return mail.attach(words.file_of(size), "bill.pdf") if size else mail


def _ask(port: int, command: str) -> tuple[float, float]:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="bench") as line:
        code, said = line.docmd(command)
    assert code == 250, said
    words = said.split()
    return (float(words[0]), float(words[1])) if command == "STAT" else (0.0, 0.0)


def _is_there(port: int) -> bool:
    try:
        _ask(port, "STAT")
    except OSError:
        return False
    return True
