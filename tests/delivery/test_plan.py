"""Which way a message goes: fallbacks, weights, rates, priorities."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from benchmarks import rows
from flask_communication import SMS
from flask_communication.configs import store
from flask_communication.configs.routes import Route, in_order
from flask_communication.configs.state import state_of
from flask_communication.delivery.policy import rate
from flask_communication.delivery.worker.worker import Worker
from flask_communication.providers.base import NotSent, OutcomeUnknown, Refused
from tests.support.apps import TO, MakeApp, install, make_due, work
from tests.support.providers import Scripted, raising
from tests.support.waiting import wait_until


class Second(Scripted):
    name = "second"


@pytest.fixture
def one() -> Scripted:
    return Scripted()


@pytest.fixture
def two() -> Second:
    return Second()


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, one: Scripted, two: Second) -> Flask:
    app = make_app(upgraded_url, COMMUNICATION_CONCURRENCY=1)
    install(app, one, key="first", fallback=["second"])
    install(app, two, key="second")
    return app


def test_what_was_not_sent_goes_by_the_fallback_at_once(
    app: Flask, one: Scripted, two: Second
) -> None:
    one.answer = raising(NotSent("connection refused"))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        message = SMS.get(uuid)
    assert message.status == "sent"
    assert [attempt.state for attempt in message.attempts] == ["not_sent", "accepted"]
    assert two.rang == {uuid: 1}
    assert not one.rang


def test_when_all_fail_there_is_a_pause_and_then_another_round(
    app: Flask, one: Scripted, two: Second
) -> None:
    one.answer = two.answer = raising(NotSent("connection refused"))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        assert (len(one.calls), len(two.calls)) == (1, 1)
        message = SMS.get(uuid)
        assert message.status == "queued"
        assert message.due_at is not None
        make_due(app)
        work(app)
    assert (len(one.calls), len(two.calls)) == (2, 2)


@pytest.mark.parametrize("window", [0.0, 3600.0])
def test_nothing_that_may_have_left_goes_by_a_fallback(
    app: Flask, one: Scripted, two: Second, window: float
) -> None:
    one.idempotency_window = window
    one.answer = raising(OutcomeUnknown("read timeout"))
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        for _ in range(4):
            work(app)
            make_due(app)
    assert len(one.calls) == (4 if window else 1)
    assert not two.calls


def test_what_is_refused_goes_by_no_fallback(app: Flask, one: Scripted, two: Second) -> None:
    one.answer = raising(Refused("bad number", http_status=422))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        assert SMS.get(uuid).status == "rejected"
    assert not two.calls


def test_a_wrong_password_loses_nothing_where_there_is_a_fallback(
    app: Flask, one: Scripted, two: Second
) -> None:
    one.answer = raising(Refused("wrong password", http_status=401))
    with app.app_context():
        uuids = [SMS.send_msg(TO, f"Hello {number}") for number in range(4)]
        work(app)
        assert {SMS.get(uuid).status for uuid in uuids} == {"sent"}
    assert len(one.calls) == 1
    assert len(two.calls) == 4


def test_a_paused_configuration_is_passed_over_and_used_again_later(
    app: Flask, one: Scripted, two: Second
) -> None:
    one.answer = raising(NotSent("connection refused"))
    with app.app_context():
        for number in range(10):
            SMS.send_msg(TO, f"Hello {number}")
        work(app)
        assert len(one.calls) == 5
        assert len(two.calls) == 10
        with state_of(app).database.write() as connection:
            connection.execute(
                text("UPDATE communication_circuit SET until = '2020-01-01 00:00:00.000000'")
            )
        one.answer = None
        for number in range(3):
            SMS.send_msg(TO, f"Back {number}")
        work(app)
        # One probe found out; those claimed with it went by the fallback, later ones do not have
        # to.
        SMS.send_msg(TO, "Home")
        work(app)
    assert one.rang.total() >= 2


def test_a_report_finds_the_message_at_the_provider_that_sent_it(
    app: Flask, one: Scripted, two: Second
) -> None:
    one.answer = raising(NotSent("connection refused"))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        two.reports[f"ref-{uuid}"] = "delivered"
        SMS.sync_delivery_report()
        assert SMS.get(uuid).status == "delivered"
    assert not one.asked


def test_a_disabled_fallback_or_one_that_is_not_there_is_passed_over(
    app: Flask, one: Scripted, two: Second
) -> None:
    state = state_of(app)
    store.change(state, "1", {"fallback": ["nobody", "second"]})
    store.change(state, "2", {"enabled": False})
    one.answer = raising(NotSent("connection refused"))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        assert SMS.get(uuid).status == "queued"
    assert len(one.calls) == 1
    assert not two.calls


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((100, 100), (100, 0)),
        ((70, 30), (70, 30)),
        ((50, 30, 20), (50, 30, 20)),
        ((1, 3), (25, 75)),
        ((0, 100), (0, 100)),
        ((0, 0), (100, 0)),
    ],
)
def test_weights_say_with_which_configuration_messages_begin(
    weights: tuple[int, ...], shares: tuple[int, ...]
) -> None:
    routes = {number: Route(number, weight=weight) for number, weight in enumerate(weights)}
    home = Route(0, weight=weights[0], fallback=tuple(range(1, len(weights))))
    first = Counter(in_order(home, routes, f"{point:08x}")[0].config_id for point in range(100))
    assert tuple(first[number] for number in routes) == shares


def test_a_message_begins_with_the_same_configuration_however_often_it_is_asked() -> None:
    routes = {1: Route(1, weight=50), 2: Route(2, weight=50)}
    home = Route(1, weight=50, fallback=(2,))
    orders = {
        tuple(route.config_id for route in in_order(home, routes, "deadbeef")) for _ in range(5)
    }
    assert len(orders) == 1


def test_over_the_rate_is_later_and_never_lost(make_app: MakeApp, upgraded_url: str) -> None:
    provider = Scripted()
    app = make_app(upgraded_url)
    install(app, provider, rate_per_second=30)
    with app.app_context():
        uuids = SMS.send_bulk([{"destination": TO, "msg": f"Hello {n}"} for n in range(60)])
        began = time.monotonic()
        work(app, linger=5.0)
        took = time.monotonic() - began
        assert {SMS.get(uuid).status for uuid in uuids} == {"sent"}
        assert all(len(SMS.get(uuid).attempts) == 1 for uuid in uuids)
    # A third of a second's worth went at once.
    assert took > 50 / 30 * 0.95


def test_workers_share_one_rate(make_app: MakeApp, upgraded_url: str) -> None:
    provider = Scripted()
    app = make_app(upgraded_url)
    install(app, provider, rate_per_second=30)
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": f"Hello {n}"} for n in range(60)])

    def attend() -> None:
        with app.app_context():
            Worker(state_of(app)).burst(linger=5.0)

    began = time.monotonic()
    workers = [threading.Thread(target=attend) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(provider.rang) == 60
    assert set(provider.rang.values()) == {1}
    assert time.monotonic() - began > 50 / 30 * 0.95


def test_a_slow_rate_sends_one_and_lines_up_the_others() -> None:
    granted, filled, delays = rate.share(0.5, 3, to_full=0.0, queue=0.0)
    assert (granted, filled) == (1, 2.0)
    assert delays == [2.0, 4.0]
    granted, _, delays = rate.share(10.0, 2, to_full=1.0, queue=3.0)
    assert granted == 0
    assert delays == [3.0, 3.1]


def test_a_rate_that_is_next_to_nothing_stops_no_other_configuration(
    make_app: MakeApp, upgraded_url: str
) -> None:
    provider, app = Scripted(), make_app(upgraded_url)
    install(app, provider, is_default=True)
    install(app, provider, key="crawling")
    with state_of(app).database.write() as connection:
        connection.execute(
            text("UPDATE communication_config SET rate_per_second = 1e-300 WHERE key = 'crawling'")
        )
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": f"Hello {n}"} for n in range(3)], key="crawling")
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        assert SMS.get(uuid).status == "sent"
    assert len(provider.rang) == 2  # a first message may always go


def test_the_line_is_not_longer_than_five_minutes() -> None:
    _, _, delays = rate.share(1.0, 1000, to_full=0.0, queue=0.0)
    assert max(delays) == rate.LINE_UP_FOR


def test_a_password_never_waits_behind_a_hundred_thousand(
    make_app: MakeApp, upgraded_url: str
) -> None:
    provider, app = Scripted(), make_app(upgraded_url, COMMUNICATION_CONCURRENCY=4)
    install(app, provider, is_default=True)
    install(app, provider, key="second")
    with state_of(app).database.write() as connection:
        rows.fill(connection, 0, queued=100_000)
    urgent = "the code is 4711"

    gate = threading.Event()

    def held_up(sms: Any) -> Any:
        # The first two hundred are quick, so that the worker takes up more than it is dialling.
        if len(provider.calls) > 200:
            gate.wait(60)
        return provider.ring(sms)

    def dialled(msg: str) -> bool:
        return any(sms.msg == msg for sms in provider.calls)

    provider.answer = held_up
    with app.app_context():
        worker = Worker(state_of(app))
        attending = threading.Thread(target=worker.run)
        attending.start()
        wait_until(lambda: len(provider.calls) > 200)
        # One request of the four is kept free for it, whatever the others wait for.
        SMS.send_msg(TO, urgent, priority="high")
        wait_until(lambda: dialled(urgent))
        # Now all four wait. The next urgent one is the first to follow them.
        next_one = SMS.send_msg(TO, f"{urgent}, again", priority="high")
        wait_until(lambda: is_claimed(app, next_one))
        before = len(provider.calls)
        gate.set()
        wait_until(lambda: dialled(f"{urgent}, again"))
        worker.stop()
        attending.join()
    assert f"{urgent}, again" in [sms.msg for sms in provider.calls[before : before + 4]]


def is_claimed(app: Flask, uuid: str) -> bool:
    query = text("SELECT fence FROM communication_message WHERE uuid = :uuid")
    with state_of(app).database.read() as connection:
        return bool(connection.scalar(query, {"uuid": uuid}))
