"""Who attends, and who rings for whom: embedded, by Redis, and when Redis is away."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from redis import Redis

from flask_communication import SMS, Email
from flask_communication.configs.settings import Settings
from flask_communication.configs.state import state_of
from flask_communication.delivery.worker.bell import RING_FOR_MS, SILENT_FOR, Bell
from flask_communication.delivery.worker.worker import Worker
from flask_communication.storage import migrations
from tests.support.apps import TO, MakeApp, install, make_due, work
from tests.support.loopback import server
from tests.support.postbox import Postbox
from tests.support.providers import Scripted
from tests.support.waiting import wait_until


def test_the_embedded_worker_sends_by_itself(make_app: MakeApp, upgraded_url: str) -> None:
    app, provider = make_app(upgraded_url, COMMUNICATION_EMBEDDED_WORKER=True), Scripted()
    install(app, provider)
    before = threading.active_count()
    with app.app_context():
        first = SMS.send_msg(TO, "Hello")
        wait_until(lambda: SMS.get(first).status == "sent")
        taken = []
        for number in range(2, 7):
            begun = time.monotonic()
            SMS.send_msg(TO, f"Hello {number}")
            wait_until(lambda number=number: len(provider.calls) == number)  # type: ignore[misc]
            taken.append(time.monotonic() - begun)
    # A worker that is not woken looks once a second. The quickest: this machine may be busy.
    assert min(taken) < 0.5
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("communication-worker") >= 1
    assert before < threading.active_count()


def test_the_embedded_worker_starts_with_the_first_request(
    make_app: MakeApp, upgraded_url: str
) -> None:
    sender, provider = make_app(upgraded_url), Scripted()
    install(sender, provider)
    with sender.app_context():
        SMS.send_msg(TO, "left from before the restart")
    app = make_app(upgraded_url, COMMUNICATION_EMBEDDED_WORKER=True)
    state_of(app).registry.register(provider)
    assert "communication-worker" not in [thread.name for thread in threading.enumerate()]
    app.test_client().get("/communication/health")
    wait_until(lambda: len(provider.calls) == 1)


def test_several_workers_at_once_send_each_message_once(
    make_app: MakeApp, upgraded_url: str
) -> None:
    provider = Scripted()
    apps = [make_app(upgraded_url) for _ in range(4)]
    install(apps[0], provider)
    for app in apps[1:]:
        state_of(app).registry.register(provider)
    with apps[0].app_context():
        uuids = SMS.send_bulk([{"destination": TO, "msg": f"{n}"} for n in range(300)])
    threads = [threading.Thread(target=work, args=[app]) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.rang == dict.fromkeys(uuids, 1)


def test_a_stopping_worker_puts_back_what_it_has_not_dialled(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app, provider = make_app(upgraded_url, COMMUNICATION_CONCURRENCY=2), Scripted()
    worker = Worker(state_of(app))

    def stop_at_once(sms: object) -> object:
        worker.stop()
        time.sleep(0.1)
        return provider.ring(sms)  # type: ignore[arg-type]

    provider.answer = stop_at_once  # type: ignore[assignment]
    install(app, provider)
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": f"{n}"} for n in range(20)])
        worker.run()
        assert len(provider.calls) < 20
        provider.answer = None
        work(app)
    assert sum(provider.rang.values()) == 20


def test_a_burst_ends_within_its_budget(make_app: MakeApp, upgraded_sqlite_url: str) -> None:
    app, provider = make_app(upgraded_sqlite_url, COMMUNICATION_CONCURRENCY=1), Scripted()

    def slow(sms: object) -> object:
        time.sleep(0.05)
        return provider.ring(sms)  # type: ignore[arg-type]

    provider.answer = slow  # type: ignore[assignment]
    install(app, provider)
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": f"{n}"} for n in range(100)])
        work(app, budget=0.5)
    # All of them take 5 s.
    assert 0 < len(provider.calls) < 100


def jobs(redis_url: str) -> int:
    return int(Redis.from_url(redis_url).llen("rq:queue:communication"))


def test_many_sends_ring_once_until_a_worker_answers(
    make_app: MakeApp, upgraded_url: str, redis_url: str
) -> None:
    app = make_app(upgraded_url, COMMUNICATION_REDIS_URL=redis_url)
    install(app, Scripted())
    begun = time.monotonic()
    with app.app_context():
        for number in range(20):
            SMS.send_msg(TO, f"{number}")
        rang = jobs(redis_url)
        # A ring that is not answered serves for two seconds.
        assert 1 <= rang <= 1 + (time.monotonic() - begun) / (RING_FOR_MS / 1000)
        bell = state_of(app).bell
        assert bell is not None
        bell.answer()
        SMS.send_msg(TO, "after the answer")
        assert jobs(redis_url) == rang + 1
    keys = Redis.from_url(redis_url).keys("*")
    dump = b"".join(Redis.from_url(redis_url).dump(key) or b"" for key in keys)
    assert TO.encode() not in dump


def test_a_dead_redis_neither_fails_nor_holds_up_a_send(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    tried: list[int] = []
    begun = time.monotonic()
    with server(lambda _: tried.append(1)) as url:
        app = make_app(upgraded_sqlite_url, COMMUNICATION_REDIS_URL=url.replace("http", "redis"))
        install(app, Scripted())
        with app.app_context():
            uuids = [SMS.send_msg(TO, f"{n}") for n in range(50)]
    # After a failure no send tries Redis for half a minute.
    assert 1 <= len(tried) <= 1 + (time.monotonic() - begun) / SILENT_FOR
    with app.app_context():
        work(app)
        assert {SMS.get(uuid).status for uuid in uuids} == {"sent"}


def test_a_redis_that_accepts_and_says_nothing_costs_less_than_0_3_s(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        app = make_app(upgraded_sqlite_url, COMMUNICATION_REDIS_URL=url)
        install(app, Scripted())
        bell = state_of(app).bell
        assert isinstance(bell, Bell)
        taken: list[float] = []
        with app.app_context():
            for _ in range(5):
                bell._silent_until = 0.0
                begun = time.monotonic()
                SMS.send_msg(TO, "Hello")
                taken.append(time.monotonic() - begun)
    # The quickest of several: this machine may be busy.
    assert min(taken) < 0.3


def test_a_bell_that_failed_is_tried_again(redis_url: str) -> None:
    bell = Bell(Settings(redis_url=redis_url))
    bell._silent_until = time.monotonic() + SILENT_FOR
    bell.ring()
    assert jobs(redis_url) == 0
    bell._silent_until = time.monotonic()
    bell.ring()
    assert jobs(redis_url) == 1


def test_the_ticker_rings_for_overdue_work_once_for_all_processes(
    make_app: MakeApp, upgraded_url: str, redis_url: str
) -> None:
    from flask_communication.delivery.worker.worker import Ticker

    app = make_app(upgraded_url, COMMUNICATION_REDIS_URL=redis_url)
    install(app, Scripted())
    with app.app_context():
        SMS.send_msg(TO, "Hello")
    Redis.from_url(redis_url).flushall()
    state = state_of(app)
    assert isinstance(state.bell, Bell)
    tickers = [Ticker(state, state.bell) for _ in range(3)]
    for ticker in tickers:
        ticker._tick()
    assert jobs(redis_url) == 1


def test_nothing_rings_when_nothing_is_due(
    make_app: MakeApp, upgraded_url: str, redis_url: str
) -> None:
    from flask_communication.delivery.worker.worker import Ticker

    app = make_app(upgraded_url, COMMUNICATION_REDIS_URL=redis_url)
    state = state_of(app)
    assert isinstance(state.bell, Bell)
    Ticker(state, state.bell)._tick()
    assert jobs(redis_url) == 0


def test_in_memory_no_thread_shares_the_hosts_connection(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    from flask_communication.storage import migrations

    app = make_app("sqlite://", COMMUNICATION_EMBEDDED_WORKER=True)
    migrations.upgrade(state_of(app).database)
    provider = Scripted()
    install(app, provider)
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        assert "in-memory SQLite" in caplog.text
        work(app)
    assert len(provider.calls) == 1


def test_reports_are_synced_by_the_worker_when_they_are_due(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app, provider = make_app(upgraded_url), Scripted()
    install(app, provider)
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        work(app)
        assert provider.asked == []
        provider.reports[f"ref-{uuid}"] = "delivered"
        make_due(app)
        work(app)
        message = SMS.get(uuid)
    assert (message.status, message.due_at) == ("delivered", None)
    assert provider.asked == [f"ref-{uuid}"]


def test_a_ring_is_heard_at_once_and_with_it_comes_a_job(redis_url: str) -> None:
    bell, redis = Bell(Settings(redis_url=redis_url)), Redis.from_url(redis_url)
    heard, ended = threading.Event(), threading.Event()
    listener = threading.Thread(target=bell.hear, args=(heard.set, ended))
    listener.start()
    try:
        wait_until(lambda: redis.pubsub_numsub("communication:bell:communication")[0][1] == 1)
        bell.ring()
        assert heard.wait(60)
        assert redis.llen("rq:queue:communication") == 1
    finally:
        ended.set()
        listener.join(60)
    assert not listener.is_alive()


def test_on_one_connection_mailboxes_are_read_before_anything_is_sent(make_app: MakeApp) -> None:
    app = make_app("sqlite://")
    provider, postbox = Scripted(), Postbox(b"Subject: Hello\r\n\r\nHello")
    with app.app_context():
        migrations.upgrade(state_of(app).database)
    install(app, provider)
    install(app, postbox, type="email")
    sent_before: list[int] = []

    def note() -> None:
        # Long enough for a sender beside it to have sent.
        time.sleep(0.3)
        sent_before.append(len(provider.calls))

    postbox.meanwhile = note
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        assert SMS.get(uuid).status == "sent"
        assert len(Email.messages(status="received").items) == 1
    assert sent_before == [0]
