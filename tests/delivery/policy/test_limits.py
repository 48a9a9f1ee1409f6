"""Limits: what exceeds them is held, once, strictly, with one alert, and passes when it is
released.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select, text

from flask_communication import SMS, Email, signals
from flask_communication.configs.state import state_of
from flask_communication.delivery.policy import limits
from flask_communication.errors import MessageNotFound, NotReleasable
from flask_communication.providers.base import Accepted, NotSent, OutboundEmail
from flask_communication.storage.models import Event, Message, Usage
from flask_communication.storage.models.operation import hash_recipient
from tests.support.apps import TO, MakeApp, install, make_due, statements_of, work
from tests.support.providers import Bulky, Scripted

Hosts = Callable[..., tuple[Flask, Bulky]]


@pytest.fixture
def host(make_app: MakeApp, upgraded_url: str) -> Hosts:
    def make(**limits: Any) -> tuple[Flask, Bulky]:
        app = make_app(
            upgraded_url, **{f"COMMUNICATION_{name}": value for name, value in limits.items()}
        )
        provider = Bulky()
        install(app, provider)
        return app, provider

    return make


def send(app: Flask, *numbers: str) -> list[str]:
    with app.app_context():
        return SMS.send_bulk([{"destination": one, "msg": "Hello"} for one in numbers])


def statuses(app: Flask) -> Counter[str]:
    with state_of(app).database.session() as session:
        return Counter(session.scalars(select(Message.status)))


def reasons(app: Flask) -> set[str | None]:
    with state_of(app).database.session() as session:
        return set(session.scalars(select(Message.error).where(Message.status == "held")))


@contextmanager
def alerts() -> Iterator[list[dict[str, Any]]]:
    heard: list[dict[str, Any]] = []

    def hear(_sender: Flask, **told: Any) -> None:
        heard.append(told)

    with signals.limit_reached.connected_to(hear):
        yield heard


def epoch(app: Flask) -> float:
    with state_of(app).database.read() as connection:
        return limits._lock_and_read_clock(connection)


def count_before(app: Flask, scope: str, periods: dict[int, int], seconds: int) -> None:
    """Write counters of past periods: how many periods ago -> how many."""
    with state_of(app).database.write() as connection:
        now = int(limits._lock_and_read_clock(connection) // seconds)
        for ago, count in periods.items():
            connection.execute(
                text(
                    "INSERT INTO communication_usage (scope, period, count, alerted, expires_at)"
                    " VALUES (:scope, :period, :count, false, '2099-01-01 00:00:00.000000')"
                ),
                {"scope": scope, "period": now - ago, "count": count},
            )


def test_the_same_number_ten_times_gets_five_in_ten_minutes(host: Hosts) -> None:
    app, provider = host(LIMIT_PER_RECIPIENT=[(5, 600), (20, 86400)])
    send(app, *[TO] * 10, "+919999922222")
    with alerts() as heard:
        work(app)
    assert statuses(app) == {"sent": 6, "held": 5}
    assert sum(provider.rang.values()) == 6
    assert reasons(app) == {
        "COMMUNICATION_LIMIT_PER_RECIPIENT allows a recipient 5 messages in 600 s"
    }
    assert len(heard) == 1


def test_a_list_of_ten_thousand_stops_at_the_limit_of_the_day_with_one_alert(
    host: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    app, provider = host(LIMIT_PER_DAY=1000)
    send(app, *[f"+9199{number:08}" for number in range(10_000)])
    with alerts() as heard, caplog.at_level(logging.WARNING, "flask_communication"):
        work(app)
    assert statuses(app) == {"sent": 1000, "held": 9000}
    assert sum(provider.rang.values()) == 1000
    (alert,) = heard
    assert (alert["channel"], alert["limit"], alert["status"]) == (
        "sms",
        "COMMUNICATION_LIMIT_PER_DAY",
        "held",
    )
    assert alert["reason"] == "COMMUNICATION_LIMIT_PER_DAY allows no more messages on this UTC day"
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    (warning,) = [one for one in warnings if "held back" in one]
    assert "COMMUNICATION_LIMIT_PER_DAY" in warning
    with app.app_context():
        assert SMS.get(alert["message_uuid"]).status == "held"
    # The next worker of the day tells nobody again.
    send(app, TO)
    with alerts() as heard:
        work(app)
    assert heard == []


def test_three_hundred_numbers_of_one_prefix_are_stopped_at_the_floor(host: Hosts) -> None:
    app, _ = host(PREFIX_GROWTH=10)
    send(
        app, *[f"+252611{number:06}" for number in range(300)], *[f"+9198{n:08}" for n in range(50)]
    )
    with alerts() as heard:
        work(app)
    assert statuses(app) == {"sent": 150, "held": 200}
    assert reasons(app) == {
        "COMMUNICATION_PREFIX_GROWTH allows a prefix 10 times its mean of the last 7 days, or 100 "
        "a day"
    }
    assert len(heard) == 1


def test_a_busy_prefix_may_grow_by_as_much_as_the_setting_says(host: Hosts) -> None:
    app, _ = host(PREFIX_GROWTH=(2, 10))
    # 140 in the last seven days is a mean of 20, also if they all fell on one day; the eighth does
    # not count.
    count_before(app, "sms:prefix:+919999", {1: 100, 7: 40, 8: 10_000}, 86400)
    send(app, *[f"+919999{number:06}" for number in range(60)])
    work(app)
    assert statuses(app) == {"sent": 40, "held": 20}


def test_the_period_before_counts_by_the_share_that_is_not_over(host: Hosts) -> None:
    app, _ = host(LIMIT_PER_RECIPIENT=[(10, 3600)])
    count_before(app, f"sms:recipient/3600:{hash_recipient(TO)}", {1: 10, 2: 1000}, 3600)
    begun = epoch(app)
    send(app, *[TO] * 10)
    work(app)
    elapsed = [begun / 3600 % 1, epoch(app) / 3600 % 1]
    allowed = {int(10 - 10 * (1 - share)) for share in elapsed}
    assert statuses(app)["sent"] in allowed


def test_a_recipient_cannot_be_read_from_the_counters(host: Hosts) -> None:
    app, _ = host(LIMIT_PER_RECIPIENT=[(5, 2**31 - 1)], LIMIT_PER_DAY=9)
    send(app, TO)
    work(app)
    with state_of(app).database.session() as session:
        scopes = list(session.scalars(select(Usage.scope)))
    assert len(scopes) == 3
    assert not any(TO[1:] in scope for scope in scopes)


@pytest.mark.parametrize(
    ("allowed", "destination", "status"),
    [
        (["IN"], TO, "sent"),
        (["IN"], "+12125550123", "held"),
        (["+91"], TO, "sent"),
        (["+919"], "+918888811111", "held"),
        (["GB", "+1"], "+12125550123", "sent"),
        # Premium rate, satellite, and Jersey, which shares +44, are no plain British numbers.
        (["GB"], "+447400123456", "sent"),
        (["GB"], "+449098790000", "held"),
        (["GB"], "+881612345678", "held"),
        (["GB"], "+447797712345", "held"),
        (["US"], "+999123456789", "held"),
    ],
)
def test_only_allowed_countries_are_sent_to(
    host: Hosts, allowed: list[str], destination: str, status: str
) -> None:
    app, _ = host(ALLOWED_COUNTRIES=allowed)
    (uuid,) = send(app, destination)
    with alerts() as heard:
        work(app)
    with app.app_context():
        assert SMS.get(uuid).status == status
    assert [one["limit"] for one in heard] == ["COMMUNICATION_ALLOWED_COUNTRIES"] * (
        status == "held"
    )


def test_one_limit_that_is_reached_does_not_use_up_the_others(host: Hosts) -> None:
    app, _ = host(LIMIT_PER_RECIPIENT=[(1, 3600)], LIMIT_PER_DAY=3)
    send(app, TO, TO, TO, TO)
    work(app)
    send(app, "+919999922222", "+919999933333")
    work(app)
    assert statuses(app) == {"sent": 3, "held": 3}


def test_a_message_is_counted_once_however_often_it_is_tried(host: Hosts) -> None:
    app, provider = host(LIMIT_PER_RECIPIENT=[(1, 3600)], LIMIT_PER_DAY=1)

    def refuse(_batch: Any, _config: Any) -> Any:
        raise NotSent("connection refused")

    provider.answer = lambda sms: refuse([sms], {})
    (uuid,) = send(app, TO)
    for _ in range(3):
        work(app)
        make_due(app)
    provider.answer = None
    work(app)
    with app.app_context():
        message = SMS.get(uuid)
        assert [one.state for one in message.attempts] == ["not_sent"] * 3 + ["accepted"]
        # A person's retry is no new message either.
        SMS.retry_send(uuid, force=True)
        work(app)
        assert SMS.get(uuid).status == "sent"
    send(app, "+919999922222")
    work(app)
    assert statuses(app) == {"sent": 1, "held": 1}


def test_what_is_released_passes_and_its_story_says_so(host: Hosts) -> None:
    app, _ = host(LIMIT_PER_DAY=1)
    _, held = send(app, TO, TO)
    work(app)
    with app.app_context():
        held = SMS.messages(status="held").items[0].uuid
        assert SMS.release(held) == held
        message = SMS.get(held)
        assert (message.status, message.error) == ("queued", None)
        assert message.admitted_at is not None
        work(app)
        message = SMS.get(held)
        assert message.status == "sent"
        assert message.attempts[0].key == held
        assert [(one.kind, one.detail) for one in message.events] == [
            ("released", "released by a person")
        ]
        with pytest.raises(NotReleasable, match="is sent and cannot be released"):
            SMS.release(held)
        with pytest.raises(MessageNotFound):
            SMS.release("no-such-uuid")


def test_what_is_held_can_be_cancelled_and_is_not_retried(host: Hosts) -> None:
    app, provider = host(ALLOWED_COUNTRIES=["+1"])
    (uuid,) = send(app, TO)
    work(app)
    with app.app_context():
        with pytest.raises(Exception, match="release it instead"):
            SMS.retry_send(uuid)
        SMS.cancel(uuid)
        work(app)
        assert SMS.get(uuid).status == "cancelled"
    assert not provider.rang


def test_what_has_expired_uses_up_nothing(host: Hosts) -> None:
    app, _ = host(LIMIT_PER_DAY=1)
    send(app, TO)
    make_due(app, expires_at="2020-01-01 00:00:00.000000")
    work(app)
    send(app, TO)
    work(app)
    assert statuses(app) == {"expired": 1, "sent": 1}


def run(app: Flask, *words: str, expect: int = 0) -> str:
    result = app.test_cli_runner().invoke(args=["communication", *words])
    assert result.exit_code == expect, result.output
    return result.output


def test_the_command_line_releases_one_or_all_or_those_of_a_recipient(host: Hosts) -> None:
    app, _ = host(ALLOWED_COUNTRIES=["+1"])
    (first,) = send(app, TO)
    others = send(app, *[TO] * 3, *[f"+9198{number:08}" for number in range(1100)])
    work(app)
    assert "1 released" in run(app, "release", first)
    assert "next: nothing, until it is released" in run(app, "show", others[0])
    assert "3 released" in run(app, "release", "--all", "--to", TO)
    assert "1100 released" in run(app, "release", "--all")
    assert "0 released" in run(app, "release", "--all")
    assert "cannot be released" in run(app, "release", first, expect=1)
    for words in ((), ("--all", first), (first, "--to", TO)):
        assert "--all" in run(app, "release", *words, expect=2)
    work(app)
    assert statuses(app) == {"sent": 1104}
    with state_of(app).database.session() as session:
        assert len(list(session.scalars(select(Event.id).where(Event.kind == "released")))) == 1104


def test_an_email_is_held_and_released_like_an_sms(host: Hosts) -> None:
    app, _ = host(LIMIT_PER_DAY={"email": 1}, ALLOWED_COUNTRIES=["+1"])

    class Post(Scripted):
        name = "post"
        types = ("email",)

        def send_email(self, email: OutboundEmail, config: Any) -> Accepted:
            return Accepted(f"ref-{email.key}")

    install(app, Post(), type="email", config={"sender": "shop@shop.example"})
    with app.app_context(), alerts() as heard:
        for number in range(4):
            Email(
                to=f"ann{number}@x.example", sender="shop@shop.example", subject="Hi", body="Hello"
            ).send()
        work(app)
    assert statuses(app) == {"sent": 1, "held": 3}
    assert [one["channel"] for one in heard] == ["email"]
    with app.app_context():
        held = [one.uuid for one in Email.messages(status="held").items]
        Email.release(held[0])
    client = app.test_client()
    assert client.post(f"/communication/messages/{held[1]}/release").status_code == 200
    assert "1 released" in run(app, "release", held[2])
    work(app)
    assert statuses(app) == {"sent": 4}


def test_rest_releases_what_is_held_and_nothing_else(host: Hosts) -> None:
    app, _ = host(ALLOWED_COUNTRIES=["+1"])
    client: FlaskClient = app.test_client()
    (uuid,) = send(app, TO)
    work(app)
    assert client.post(f"/communication/messages/{uuid}/release").json == {
        "success": True,
        "msg": "Successfully released",
    }
    assert client.post(f"/communication/messages/{uuid}/release").status_code == 409
    assert client.post("/communication/messages/nobody/release").status_code == 404


def statements(app: Flask, number: int) -> list[str]:
    """Return the SQL of a claim of this many messages."""
    send(app, *[f"+919{number % 10}{one:08}" for one in range(number)])
    with statements_of(app) as said:
        work(app)
    return said


def touching(said: list[str], table: str) -> int:
    return sum(table in statement for statement in said)


def test_without_a_limit_no_sql_is_run_for_them(host: Hosts) -> None:
    app, _ = host()
    said = statements(app, 20)
    assert touching(said, "communication_usage") == touching(said, "admitted_at =") == 0
    assert touching(said, "advisory") == 0


def test_the_statements_do_not_grow_with_the_batch(make_app: MakeApp, upgraded_url: str) -> None:
    app = make_app(
        upgraded_url,
        COMMUNICATION_CONCURRENCY=1000,
        COMMUNICATION_LIMIT_PER_RECIPIENT=[(5, 600), (20, 86400)],
        COMMUNICATION_LIMIT_PER_DAY=150,
        COMMUNICATION_ALLOWED_COUNTRIES=["+91"],
        COMMUNICATION_PREFIX_GROWTH=10,
    )
    install(app, Bulky())
    statements(app, 5)
    few = touching(statements(app, 6), "communication_usage")
    many = touching(statements(app, 900), "communication_usage")
    assert 0 < many == few


@pytest.mark.parametrize(
    "settings", [{"LIMIT_PER_DAY": 100}, {"LIMIT_PER_RECIPIENT": [(100, 86400)]}]
)
def test_several_workers_never_let_more_than_the_limit_pass(
    make_app: MakeApp, upgraded_url: str, settings: dict[str, Any]
) -> None:
    config = {f"COMMUNICATION_{name}": value for name, value in settings.items()}
    # As in separate processes: each worker has an application, an engine and a pool of its own.
    apps = [make_app(upgraded_url, COMMUNICATION_CONCURRENCY=3, **config) for _ in range(4)]
    provider = Scripted()
    install(apps[0], provider)
    for app in apps[1:]:
        state_of(app).registry.register(provider)
    send(apps[0], *[TO] * 400)
    together = threading.Barrier(len(apps))

    def attend(app: Flask) -> None:
        together.wait()
        work(app)

    with alerts() as heard:
        threads = [threading.Thread(target=attend, args=[app]) for app in apps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses(apps[0]) == {"sent": 100, "held": 300}
    assert sum(provider.rang.values()) == 100
    assert len(heard) == 1


def test_counters_that_are_over_are_dropped(host: Hosts) -> None:
    app, _ = host(LIMIT_PER_DAY=1)
    with state_of(app).database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO communication_usage (scope, period, count, alerted, expires_at)"
                " VALUES ('sms:day:all', 1, 1, false, '2020-01-01 00:00:00.000000')"
            )
        )
    send(app, TO)
    work(app)
    with state_of(app).database.session() as session:
        assert 1 not in set(session.scalars(select(Usage.period)))
