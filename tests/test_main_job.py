"""The main job on real parts: web, `rq worker`, PostgreSQL, Redis, provider: each a process."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet
from redis import Redis

from flask_communication.configs import store
from flask_communication.configs.state import state_of
from tests.support.apps import MakeApp, count_statuses
from tests.support.processes import BIN, HOME, free_port, kill, running
from tests.support.waiting import wait_until

MESSAGES = 1000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", ["rq", "flask"])
def test_every_message_arrives_once_and_every_report_is_synced(
    make_app: MakeApp,
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
        "PYTHONPATH": str(HOME),
    }
    commands: dict[str, list[str | Path]] = {
        "rq": [BIN / "rq", "worker", "--url", redis_url, "communication"],
        "flask": [BIN / "flask", "communication", "worker"],
    }
    work = commands[command]
    log = tmp_path / "log"
    rang = f"http://127.0.0.1:{provider}/rang"
    with ExitStack() as stack:
        stack.enter_context(
            running([sys.executable, HOME / "tests/processes/pages.py", str(provider)], {}, log)
        )
        stack.enter_context(
            running([BIN / "flask", "run", "--port", str(web), "--without-threads"], environ, log)
        )
        shop = f"http://127.0.0.1:{web}/order"
        wait_until(lambda: answers(rang, 200), "the provider's start")
        wait_until(lambda: answers(shop, 405), "the shop's start")
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
        try:
            wait_until(lambda: count_statuses(app) == {"delivered": MESSAGES}, "delivery", 300)
        finally:
            print(count_statuses(app), log.read_text()[-3000:])
        counted = httpx.get(rang).json()["rang"]
    assert counted == {f"message {number}": 1 for number in range(MESSAGES)}


def answers(url: str, status: int) -> bool:
    try:
        return httpx.get(url).status_code == status
    except httpx.TransportError:
        return False
