"""The main job on real parts: web, `rq worker`, PostgreSQL, Redis and a provider, each a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet
from redis import Redis

from flask_communication.configs import store
from flask_communication.configs.state import state_of

HERE = Path(__file__).parent
MESSAGES = 1000
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], environ: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own, so that its children die with it."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, **environ},
            cwd=HERE.parent,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children at once: RQ's have process groups of their own."""
    if process.poll() is None:
        for pid in [process.pid, *descendants(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def descendants(pid: int) -> Iterator[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    for child in map(int, found.stdout.split()):
        yield child
        yield from descendants(child)


def wait_for(done: Callable[[], bool], seconds: float, what: str) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if done():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{what} took more than {seconds} s")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["rq", "flask"])
def test_every_message_arrives_once_and_every_report_is_synced(
    make_app: Callable[..., object],
    upgraded_postgresql_url: str,
    redis_url: str,
    tmp_path: Path,
    command: str,
) -> None:
    key = Fernet.generate_key().decode()
    app = make_app(upgraded_postgresql_url, COMMUNICATION_ENCRYPTION_KEYS=[key])
    store.create(
        state_of(app), {"type": "sms", "provider": "", "provider_pkg_name": "pages", "config": {}}
    )
    provider, web = free_port(), free_port()
    environ = {
        "FLASK_APP": "tests.processes.shop:create_app",
        "SHOP_DATABASE": upgraded_postgresql_url,
        "SHOP_REDIS": redis_url,
        "SHOP_KEY": key,
        # A third of the true one, so that what a dead worker held is soon taken up.
        "SHOP_LEASE": "20",
        "SHOP_PROVIDER": f"http://127.0.0.1:{provider}",
        "PYTHONPATH": str(HERE.parent),
    }
    work = {
        "rq": [BIN / "rq", "worker", "--url", redis_url, "communication"],
        "flask": [BIN / "flask", "communication", "worker"],
    }[command]
    log = tmp_path / "log"
    rang = f"http://127.0.0.1:{provider}/rang"
    with ExitStack() as stack:
        stack.enter_context(
            running([sys.executable, HERE / "processes/pages.py", str(provider)], {}, log)
        )
        stack.enter_context(
            running([BIN / "flask", "run", "--port", str(web), "--without-threads"], environ, log)
        )
        shop = f"http://127.0.0.1:{web}/order"
        wait_for(lambda: httpx.get(rang).is_success, 20, "the provider's start")
        wait_for(lambda: httpx.get(shop).status_code == 405, 20, "the shop's start")
        workers = [stack.enter_context(running(work, environ, log)) for _ in range(2)]
        with httpx.Client() as client:
            for number in range(MESSAGES):
                data = {"to": "+919999911111", "msg": f"message {number}"}
                assert client.post(shop, data=data).is_success
                if number in (300, 700):
                    kill(workers.pop(0))
                    workers.append(stack.enter_context(running(work, environ, log)))
                if number == 500:
                    Redis.from_url(redis_url).flushall()
        statuses = count_statuses(app)
        try:
            wait_for(lambda: statuses() == {"delivered": MESSAGES}, 150, "delivery")
        finally:
            print(statuses(), log.read_text()[-3000:])
        counted = httpx.get(rang).json()["rang"]
    assert counted == {f"message {number}": 1 for number in range(MESSAGES)}


def count_statuses(app: object) -> Callable[[], dict[str, int]]:
    from sqlalchemy import text

    def count() -> dict[str, int]:
        with state_of(app).database.read() as connection:  # type: ignore[arg-type]
            rows = connection.execute(text("SELECT status FROM communication_message"))
            return dict(Counter(rows.scalars()))

    return count
