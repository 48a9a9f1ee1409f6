"""The breaker of a configuration: paused for all workers, probed once, closed again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_communication import SMS, signals
from flask_communication.configs import breaker, store
from flask_communication.configs.breaker import Breaker, Tally, react
from flask_communication.configs.state import state_of
from flask_communication.providers.base import Denied, NotSent, OutcomeUnknown, Refused
from tests.support.apps import TO, MakeApp, install, make_due, work
from tests.support.providers import Scripted, raising


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, provider: Scripted) -> Flask:
    # One call at a time: "in a row" is then an order the test knows.
    app = make_app(upgraded_url, COMMUNICATION_CONCURRENCY=1)
    install(app, provider)
    return app


@contextmanager
def told(app: Flask) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    heard: list[tuple[str, dict[str, Any]]] = []

    def paused(_sender: Flask, **kwargs: Any) -> None:
        heard.append(("paused", kwargs))

    def resumed(_sender: Flask, **kwargs: Any) -> None:
        heard.append(("resumed", kwargs))

    with (
        signals.config_paused.connected_to(paused, app),
        signals.config_resumed.connected_to(resumed, app),
    ):
        yield heard


def row(app: Flask) -> Any:
    with state_of(app).database.read() as connection:
        return connection.execute(text("SELECT * FROM communication_circuit")).one()


def end_pause(app: Flask) -> None:
    with state_of(app).database.write() as connection:
        connection.execute(
            text("UPDATE communication_circuit SET until = '2020-01-01 00:00:00.000000'")
        )
    make_due(app)


def send(count: int) -> list[str]:
    return [SMS.send_msg(TO, f"Hello {number}") for number in range(count)]


def test_five_failures_in_a_row_pause_a_configuration_for_all(
    app: Flask, provider: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    provider.answer = raising(NotSent("connection refused"))
    with app.app_context(), told(app) as heard, caplog.at_level(logging.WARNING):
        uuids = send(8)
        work(app)
        assert len(provider.calls) == 5
        waiting = SMS.get(uuids[-1])
        assert waiting.status == "queued"
        assert not waiting.attempts
        assert "paused for 30 s more: connection refused" in (waiting.error or "")
    assert [what for what, _ in heard] == ["paused"]
    assert heard[0][1]["seconds"] == 30.0
    assert heard[0][1]["reason"] == "connection refused"
    assert "is paused for 30 s more: connection refused" in caplog.text


def test_after_the_pause_one_message_is_the_probe(app: Flask, provider: Scripted) -> None:
    provider.answer = raising(OutcomeUnknown("read timeout"))
    with app.app_context(), told(app) as heard:
        send(9)
        work(app)
        assert len(provider.calls) == 5
        end_pause(app)
        work(app)
        assert len(provider.calls) == 6
        assert row(app).opens == 2
        end_pause(app)
        provider.answer = None
        work(app)
        assert row(app).state == "closed"
        make_due(app)
        work(app)
        assert len(provider.calls) == 9
    assert [what for what, _ in heard] == ["paused", "paused", "resumed"]
    assert [more["seconds"] for what, more in heard] == [30.0, 60.0, None]


def test_only_one_worker_takes_the_probe(app: Flask, provider: Scripted) -> None:
    provider.answer = raising(NotSent("connection refused"))
    with app.app_context():
        send(5)
        work(app)
    end_pause(app)
    with state_of(app).database.write() as connection:
        config_id = row(app).config_id
        assert breaker.take_probe(connection, config_id)
        assert not breaker.take_probe(connection, config_id)


def test_half_of_many_calls_failing_pauses_too(app: Flask, provider: Scripted) -> None:
    def every_other(sms: Any) -> Any:
        if len(provider.calls) % 2:
            raise NotSent("connection reset")
        return provider.ring(sms)

    provider.answer = every_other
    with app.app_context():
        send(30)
        work(app)
    assert row(app).state == "open"
    assert 20 <= len(provider.calls) < 30


def every_other_fails(provider: Scripted) -> Callable[[Any], Any]:
    fails = iter([True, False] * 30)

    def answer(sms: Any) -> Any:
        if next(fails):
            raise OutcomeUnknown("read timeout")
        return provider.ring(sms)

    return answer


def test_half_of_few_calls_at_a_time_failing_pauses_too_whoever_makes_them(
    app: Flask, provider: Scripted
) -> None:
    provider.answer = every_other_fails(provider)
    with app.app_context():
        for _ in range(30):
            send(2)
            work(app)  # each time another worker, as jobs of RQ are
    assert row(app).state == "open"
    # Before its first failure nobody writes anything down.
    assert 20 <= len(provider.calls) <= 22


def test_a_worker_remembers_no_more_than_a_minute_however_long_all_goes_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record, begun = breaker.RecentRequests(), time.monotonic()
    for second in range(1000):
        monkeypatch.setattr(time, "monotonic", lambda second=second: begun + second)
        assert record.updates({1: Tally(1, ok=1)}, {}) == {}
    assert len(record._requests[1]) <= breaker.WINDOW + 1
    failed = record.updates({1: Tally(1, failed=1, reason="timed out")}, {})
    assert failed[1].counted == breaker.Requests(ok=61, failed=1)


def test_failures_of_another_minute_are_not_counted(app: Flask, provider: Scripted) -> None:
    provider.answer = every_other_fails(provider)
    with app.app_context():
        for _ in range(15):
            send(2)
            work(app)
            with state_of(app).database.write() as connection:
                connection.execute(
                    text(
                        "UPDATE communication_circuit SET counted_since = '2020-01-01 "
                        "00:00:00.000000'"
                    )
                )
    assert row(app).state == "closed"
    assert len(provider.calls) == 30


def test_one_bad_message_tried_again_and_again_is_no_bad_provider(
    app: Flask, provider: Scripted
) -> None:
    provider.answer = raising(NotSent("the network of this recipient is down"))
    with app.app_context():
        send(1)
        for _ in range(8):
            work(app)
            make_due(app)
    assert len(provider.calls) == 8
    assert row(app).state == "closed"


def test_trouble_of_one_message_alone_pauses_nothing(app: Flask, provider: Scripted) -> None:
    provider.answer = raising(NotSent("no such carrier", only_this=True))
    with app.app_context():
        send(10)
        work(app)
    assert len(provider.calls) == 10


@pytest.mark.parametrize(
    "refusal", [Refused("wrong password", http_status=401), Denied("no balance")]
)
def test_who_refuses_us_is_not_asked_again_until_the_configuration_changes(
    app: Flask, provider: Scripted, refusal: Refused
) -> None:
    provider.answer = raising(refusal)
    with app.app_context(), told(app) as heard:
        uuids = send(4)
        work(app)
        assert len(provider.calls) == 1
        assert [SMS.get(uuid).status for uuid in uuids] == [
            "rejected",
            "queued",
            "queued",
            "queued",
        ]
        assert "stopped until it is changed" in (SMS.get(uuids[1]).error or "")
        make_due(app)
        work(app)
        assert len(provider.calls) == 1
        provider.answer = None
        store.change(state_of(app), row(app).config_id, {"config": {"password": None}})
        make_due(app)
        work(app)
        assert [SMS.get(uuid).status for uuid in uuids] == ["rejected", "sent", "sent", "sent"]
    assert [(what, more["seconds"]) for what, more in heard] == [
        ("paused", None),
        ("resumed", None),
    ]


def test_a_late_refusal_of_the_old_password_does_not_stop_the_new_one(
    app: Flask, provider: Scripted
) -> None:
    def change_meanwhile(_sms: Any) -> Any:
        store.change(state_of(app), "1", {"config": {"password": None}})
        raise Refused("wrong password", http_status=403)

    provider.answer = change_meanwhile
    with app.app_context():
        send(1)
        work(app)
        provider.answer = None
        second = SMS.send_msg(TO, "Again")
        work(app)
        assert SMS.get(second).status == "sent"


def test_too_many_requests_pause_everybody_for_as_long_as_asked(
    app: Flask, provider: Scripted
) -> None:
    provider.answer = raising(NotSent("slow down", http_status=429, retry_after=40.0))
    with app.app_context():
        uuids = send(5)
        work(app)
        assert len(provider.calls) == 1
        assert "paused for 40 s" in (SMS.get(uuids[2]).error or "")
        assert row(app).state == "closed"
        provider.answer = None
        end_pause(app)
        work(app)
        assert {SMS.get(uuid).status for uuid in uuids} == {"sent"}


def test_while_all_goes_well_nothing_is_written(app: Flask) -> None:
    with app.app_context():
        send(50)
        work(app)
    with state_of(app).database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM communication_circuit")).scalar() == 0


def tally(*results: object, probe: bool = False) -> Tally:
    made = Tally(1)
    for result in results:
        made.count(result, is_first=True, is_probe=probe)
    return made


def test_pauses_double_and_end_at_ten_minutes() -> None:
    known, pauses = Breaker(1, "open", opens=1, left=0.0), []
    for _ in range(6):
        known = react(known, tally(NotSent("down"), probe=True), False)
        pauses.append(known.left)
    assert pauses == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


def test_calls_from_before_the_pause_do_not_end_it() -> None:
    known = Breaker(1, "open", opens=1, left=20.0)
    assert react(known, tally("accepted"), False) is known
    assert react(known, tally("accepted", probe=True), False).state == "closed"


def test_a_success_starts_the_count_anew() -> None:
    known = Breaker(1, failures=4)
    assert react(known, tally("accepted", NotSent("down")), False).failures == 1
    assert react(known, tally(NotSent("down"), "accepted"), False).failures == 0
    assert react(known, tally(NotSent("down")), False).state == "open"
