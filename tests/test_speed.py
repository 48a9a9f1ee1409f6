"""How fast, in ratios only: this machine may be slow, busy, or both."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask
from sqlalchemy import event, text

from benchmarks import rows
from benchmarks.__main__ import MEASURES
from flask_communication import SMS, Email
from flask_communication.configs.state import State, state_of
from flask_communication.delivery import outbox, reports
from flask_communication.providers.base import Accepted, OutboundEmail, OutboundSMS, Provider
from flask_communication.providers.http import Http
from tests.support.apps import TO, MakeApp, count_statuses, install, statements_of, work
from tests.support.processes import free_port
from tests.support.providers import Bulky, Scripted

HOME = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    """Start the provider of the benchmarks."""
    port = free_port()
    process = subprocess.Popen([sys.executable, HOME / "benchmarks" / "stub.py", str(port)])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            try:
                httpx.get(f"{address}/stub/stats")
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()


def fastest(
    one: Callable[[], Any], other: Callable[[], Any], clock: Callable[[], float], turns: int = 5
) -> tuple[float, float]:
    """Return the shortest of several times of each, taken in turn: noise only ever adds."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for act, times in zip((one, other), taken, strict=True):
            begun = clock()
            act()
            times.append(clock() - begun)
    return min(taken[0]), min(taken[1])


@pytest.mark.usefixtures("any_address")
def test_a_request_costs_less_than_with_a_plain_httpx_client(stub: str) -> None:
    http, address, body = Http(), f"{stub}/plain/sms/send/", b'{"msg": "Hello"}'
    with httpx.Client() as client:
        ours, plain = fastest(
            lambda: [http.post(address, body, "application/json") for _ in range(50)],
            lambda: [client.post(address, content=body) for _ in range(50)],
            time.thread_time,
            turns=10,
        )
    # Measured: 0.42.
    assert ours < 0.8 * plain


class TenAtOnce(Scripted):
    """A provider that answers no request before nine others have come."""

    name = "ten at once"

    def __init__(self) -> None:
        super().__init__()
        self.ten = threading.Barrier(10)

    def send_sms(self, sms: OutboundSMS, config: Any) -> Accepted:
        self.ten.wait(60)
        return super().send_sms(sms, config)


def test_ten_requests_are_under_way_at_any_time_while_groups_are_written(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app, number = make_app(upgraded_url, COMMUNICATION_CONCURRENCY=20), 200
    install(app, TenAtOnce(), is_default=True)
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": "Hello"}] * number)
    assert work(app) == number
    assert count_statuses(app) == {"sent": number}


def test_many_are_accepted_faster_than_one_by_one(make_app: MakeApp, upgraded_url: str) -> None:
    app = make_app(upgraded_url)
    install(app, Scripted(), is_default=True)
    items = [{"destination": TO, "msg": "Hello"}] * 2000
    with app.app_context():
        at_once, one_by_one = fastest(
            lambda: SMS.send_bulk(items),
            lambda: [SMS.send_msg(TO, "Hello") for _ in range(50)],
            time.monotonic,
        )
    # Measured: 17 to 20 times.
    assert at_once / 2000 < one_by_one / 50 / 4


class AllAtOnce(Provider):
    """A provider that answers no email before all have come, and lets them end as one group."""

    name = "all at once"
    types = ("email",)

    def __init__(self, state: State, number: int) -> None:
        self.state = state
        self.all_here = threading.Barrier(number)
        self.held = threading.Event()
        self.leaving = threading.Semaphore(0)
        self.others = number - 1

    def send_email(self, email: OutboundEmail, config: Any) -> Accepted:
        if self.all_here.wait(60) == 0:
            # The worker cannot write down the first ones before the others have ended.
            with self.state.database.write():
                self.held.set()
                assert all(self.leaving.acquire(timeout=60) for _ in range(self.others))
                time.sleep(0.3)
            return Accepted(email.message_id)
        self.held.wait(60)
        self.leaving.release()
        return Accepted(email.message_id)


def statements(app: Flask, number: int) -> int:
    """Count the statements that a worker needs for so many emails with a file each."""
    app.extensions["communication"].registry.register(AllAtOnce(state_of(app), number))
    with app.app_context():
        for one in range(number):
            email = Email(f"p{one}@x.example", "Hello", "Hello")
            email.attach(bytes([one]), filename="a.bin")
            email.send()
    with statements_of(app) as said:
        assert work(app) == number
    return len(said)


def test_the_statements_for_emails_do_not_grow_with_their_number(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app = make_app(
        upgraded_sqlite_url,
        COMMUNICATION_CONCURRENCY=200,
        COMMUNICATION_DEFAULT_SENDER="a@x.example",
    )
    install(app, AllAtOnce(state_of(app), 1), type="email")
    few, many = statements(app, 10), statements(app, 100)
    # One more group may end by itself.
    assert many <= few + 15, (few, many)


def history(app: Flask, finished: int) -> None:
    """Give an application a long past, and 100 messages to send."""
    install(app, Scripted(), is_default=True)
    install(app, Bulky(), key="second")
    with state_of(app).database.write() as connection:
        rows.fill(connection, finished, queued=100)


def steps(app: Flask, act: Callable[[], Any]) -> int:
    """Count, in hundreds, the steps that SQLite takes; no clock is as steady."""
    counted: list[int] = []

    def listen(dbapi: Any, _record: Any, _proxy: Any) -> None:
        dbapi.set_progress_handler(lambda: counted.append(1), 100)

    engine = state_of(app).database.engine
    event.listen(engine, "checkout", listen)
    try:
        with app.app_context():
            act()
    finally:
        event.remove(engine, "checkout", listen)
    return len(counted)


PAGES: dict[str, dict[str, Any]] = {
    "everything": {},
    "a status": {"status": "delivered"},
    "a recipient": {"destination": "+919900010003"},
    "a configuration": {"key": "second"},
    "a recipient and a status": {"destination": "+919900010003", "status": "undelivered"},
}


@pytest.mark.parametrize("filters", PAGES.values(), ids=list(PAGES))
def test_a_page_does_not_grow_with_the_history(
    make_app: MakeApp, upgraded_sqlite_url: str, filters: dict[str, Any]
) -> None:
    app = make_app(upgraded_sqlite_url)
    history(app, 2000)
    few = steps(app, lambda: SMS.messages(**filters, limit=2))
    with state_of(app).database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO communication_message (uuid, channel, direction, status, destination, "
            "body, config_id, priority, fence, tries, crashes, resends, expires_at, created_at, "
            "updated_at) SELECT 'x' || n.value || '-' || m.id, 'sms', 'out', m.status, "
            "m.destination, 'Hello', m.config_id, 5, 1, 1, 0, 0, m.expires_at, m.created_at, "
            "m.updated_at FROM communication_message AS m, json_each('[1,2,3,4,5,6,7,8,9]') AS n "
            "WHERE m.due_at IS NULL"
        )
    many = steps(app, lambda: SMS.messages(**filters, limit=2))
    assert 0 < many <= 2 * few + 5, (few, many)


def test_finding_work_does_not_grow_with_the_history(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app = make_app(upgraded_sqlite_url)
    history(app, 20_000)

    def look() -> None:
        with state_of(app).database.read() as connection:
            outbox.next_due(connection)

    # Read from end to end, the table alone would take some 600.
    assert steps(app, look) <= 10


def test_a_claim_does_not_sort_what_became_due_together(
    make_app: MakeApp, upgraded_postgresql_url: str
) -> None:
    app = make_app(upgraded_postgresql_url)
    install(app, Scripted(), is_default=True)
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": "Hello"}] * 3000)
    state = state_of(app)
    statement = outbox._claim(state.database.dialect, (0, 5, 9))
    with state.database.write() as connection:
        connection.execute(text("ANALYZE communication_message"))
        plan = connection.execute(
            text(f"EXPLAIN ANALYZE {statement}"), {"limit": 20, "lease": 60.0}
        )
        told = "\n".join(plan.scalars())
    assert "ix_communication_message_due" in told
    assert "Sort" not in told


@pytest.mark.parametrize(
    "write", ["start", "begin_attempts", "settle", "dismiss", "late_truth", "ask_again"]
)
def test_a_group_is_written_by_its_ids(
    make_app: MakeApp, upgraded_postgresql_url: str, write: str
) -> None:
    # Without statistics, as after a burst: PostgreSQL then likes an index on the status, and walks
    # it.
    app = make_app(upgraded_postgresql_url)
    install(app, Scripted(), is_default=True)
    install(app, Bulky(), key="second")
    with state_of(app).database.write() as connection:
        rows.fill(connection, 1000, silent=1000, queued=4000)
    room = reports if write == "ask_again" else outbox
    statement = getattr(room, f"_{write}")(state_of(app).database.dialect)
    with state_of(app).database.write() as connection:
        given = {"rows": '[{"id": 1, "fence": 1}]', "lease": 60.0}
        plan = str(connection.execute(text(f"EXPLAIN {statement}"), given).all())
    assert "pk_communication_message" in plan
    assert "ix_communication_message_status" not in plan
    assert "Seq Scan on communication_message" not in plan


def test_every_measure_of_the_benchmarks_has_a_module() -> None:
    folder = HOME / "benchmarks" / "measures"
    assert {one.stem for one in folder.glob("*.py")} - {"__init__"} == set(MEASURES)
