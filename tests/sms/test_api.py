"""What a user calls to send SMS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from flask import Flask

from flask_communication import SMS
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.errors import (
    ConfigNotFound,
    IdempotencyConflict,
    InvalidMessage,
    InvalidQuery,
    MessageNotFound,
    NotCancellable,
    NotInitialised,
    NotResolvable,
    NotRetryable,
)
from flask_communication.providers.base import NotSent, OutcomeUnknown, Refused
from tests.support.apps import TO, MakeApp, install, make_due, work
from tests.support.providers import Scripted


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, provider: Scripted) -> Flask:
    app = make_app(upgraded_url)
    install(app, provider)
    return app


def test_the_seeds_call_returns_a_uuid_and_the_message_is_sent(
    app: Flask, provider: Scripted
) -> None:
    with app.app_context():
        uuid = SMS.send_msg(destination="+919999911111", msg="Hello World", key=None)
        assert SMS.get(uuid).status == "queued"
        work(app)
        message = SMS.get(uuid)
    assert message.status == "sent"
    assert message.provider_ref == f"ref-{uuid}"
    assert [attempt.state for attempt in message.attempts] == ["accepted"]
    assert provider.rang == {uuid: 1}
    assert provider.calls[0].msg == "Hello World"


def test_numbers_are_brought_into_one_form(app: Flask) -> None:
    with app.app_context():
        uuid = SMS.send_msg(" +91 (99999) 111-11", "Hello")
        assert SMS.get(uuid).destination == TO


@pytest.mark.parametrize(
    "fields",
    [
        {"destination": "12345"},
        {"destination": "+0123456789"},
        {"destination": "+91999991111122222"},
        {"destination": "+9199999abc11"},
        {"destination": "+91\u0661\u0662\u0663\u0664\u0665\u0666\u0667"},
        {"destination": None},
        {"destination": 919999911111},
        {"msg": ""},
        {"msg": "  \n"},
        {"msg": None},
        {"msg": b"bytes"},
        {"msg": "a\x00b"},
        {"msg": "half \ud800"},
        {"msg": "x" * 40_000},
        {"priority": "urgent"},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 256},
        {"idempotency_key": "a\nb"},
        {"sender": "a\r\nb"},
        {"metadata": "text"},
        {"metadata": {"when": datetime.now(UTC)}},
        {"metadata": {"nan": float("nan")}},
        {"metadata": {"big": "x" * 20_000}},
        {"send_at": datetime(2030, 1, 1)},
        {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_and_stores_nothing(
    app: Flask, fields: dict[str, Any]
) -> None:
    with app.app_context():
        with pytest.raises(InvalidMessage) as wrong:
            SMS.send_msg(**{"destination": TO, "msg": "Hello", **fields})
        assert list(wrong.value.errors) == list(fields)
        assert SMS.messages().items == []


def test_a_key_finds_its_configuration_and_digits_an_id(app: Flask) -> None:
    other = Scripted()
    other.name = "other"
    number = install(app, other, key="otp")
    with app.app_context():
        for key in ("otp", number, str(number)):
            assert SMS.get(SMS.send_msg(TO, "Hello", key=key)).config_id == number
        with pytest.raises(ConfigNotFound, match="'nobody'"):
            SMS.send_msg(TO, "Hello", key="nobody")


def test_without_a_configuration_the_error_says_how_to_add_one(
    make_app: MakeApp, upgraded_url: str
) -> None:
    with make_app(upgraded_url).app_context(), pytest.raises(ConfigNotFound, match="config add"):
        SMS.send_msg(TO, "Hello")


def test_outside_of_an_application_the_error_says_so() -> None:
    with pytest.raises(NotInitialised, match=r"app\.app_context"):
        SMS.send_msg(TO, "Hello")


def test_bulk_is_all_or_nothing_and_in_order(app: Flask, provider: Scripted) -> None:
    with app.app_context():
        with pytest.raises(InvalidMessage) as wrong:
            SMS.send_bulk([{"destination": TO, "msg": "a"}, {"destination": "x", "msg": "b"}])
        assert list(wrong.value.errors) == ["[1].destination"]
        assert SMS.messages().items == []
        uuids = SMS.send_bulk([{"destination": TO, "msg": f"text {n}"} for n in range(50)])
        assert [SMS.get(uuid).body for uuid in uuids] == [f"text {n}" for n in range(50)]
        work(app)
    assert provider.rang == dict.fromkeys(uuids, 1)


def test_an_empty_bulk_is_no_trouble(app: Flask) -> None:
    with app.app_context():
        assert SMS.send_bulk([]) == []


def test_the_same_key_and_body_is_one_message(app: Flask, provider: Scripted) -> None:
    with app.app_context():
        first = SMS.send_msg(TO, "Hello", idempotency_key="order-1")
        assert SMS.send_msg(TO, "Hello", idempotency_key="order-1") == first
        work(app)
        assert SMS.send_msg(TO, "Hello", idempotency_key="order-1") == first
        work(app)
    assert provider.rang == {first: 1}


def test_the_same_key_with_another_body_is_refused(app: Flask) -> None:
    with app.app_context():
        first = SMS.send_msg(TO, "Hello", idempotency_key="order-1")
        with pytest.raises(IdempotencyConflict, match=first):
            SMS.send_msg(TO, "Good bye", idempotency_key="order-1")


def test_the_same_key_twice_in_one_bulk_is_one_message(app: Flask) -> None:
    item = {"destination": TO, "msg": "Hello", "idempotency_key": "k"}
    with app.app_context():
        first, second = SMS.send_bulk([item, item])
        assert first == second
        with pytest.raises(IdempotencyConflict):
            SMS.send_bulk(
                [{**item, "idempotency_key": "n"}, {**item, "idempotency_key": "n", "msg": "x"}]
            )
        assert len(SMS.messages().items) == 1


def test_a_scheduled_message_waits_for_its_time(app: Flask) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello", send_at=datetime.now(UTC) + timedelta(hours=1))
        work(app)
        assert SMS.get(uuid).status == "queued"
        make_due(app)
        work(app)
        assert SMS.get(uuid).status == "sent"


def test_a_message_past_its_time_is_never_sent(app: Flask, provider: Scripted) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello", expires_at=datetime.now(UTC) + timedelta(seconds=30))
        make_due(app, expires_at="2020-01-01 00:00:00.000000")
        work(app)
        message = SMS.get(uuid)
    assert (message.status, message.due_at) == ("expired", None)
    assert not provider.calls


def test_urgent_messages_go_first(app: Flask, provider: Scripted) -> None:
    app.extensions["communication"].settings.__dict__["concurrency"] = 1
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": "newsletter"}] * 5)
        SMS.send_msg(TO, "hello")
        SMS.send_msg(TO, "code", priority="high")
        work(app)
    assert [sms.msg for sms in provider.calls[:3]] == ["code", "hello", "newsletter"]


def test_a_cancelled_message_is_never_sent(app: Flask, provider: Scripted) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        assert SMS.cancel(uuid) == uuid
        work(app)
        assert SMS.get(uuid).status == "cancelled"
        assert not provider.calls
        with pytest.raises(NotCancellable, match="cancelled"):
            SMS.cancel(uuid)
        with pytest.raises(MessageNotFound):
            SMS.cancel("no-such-uuid")


def test_a_refused_message_says_why_and_can_be_sent_again(app: Flask, provider: Scripted) -> None:
    def refuse(_sms: Any) -> Any:
        raise Refused("not a mobile number", code="21614", http_status=400)

    provider.answer = refuse
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        message = SMS.get(uuid)
        assert (message.status, message.error, message.error_code) == (
            "rejected",
            "not a mobile number",
            "21614",
        )
        provider.answer = None
        assert SMS.retry_send(msg_uuid=uuid) == uuid
        work(app)
        assert SMS.get(uuid).status == "sent"
    # Under a new key: a provider that remembers keys would only repeat its refusal.
    assert provider.rang == {f"{uuid}#2": 1}


def test_an_undelivered_message_is_retried_under_the_providers_own_id(
    app: Flask, provider: Scripted
) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        provider.reports[f"ref-{uuid}"] = "undelivered"
        assert SMS.sync_delivery_report() == (1, 1, 0)
        assert SMS.get(uuid).status == "undelivered"
        SMS.retry_send(uuid)
        work(app)
        assert SMS.get(uuid).status == "sent"
    assert provider.retried == [f"ref-{uuid}"]


@pytest.mark.parametrize("status", ["sent", "delivered", "sending"])
def test_what_could_ring_twice_is_not_retried(app: Flask, status: str) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        set_status(app, status)
        with pytest.raises(NotRetryable, match=status):
            SMS.retry_send(uuid)
        with pytest.raises(MessageNotFound):
            SMS.retry_send("no-such-uuid")


def test_force_sends_again_knowingly(app: Flask, provider: Scripted) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        SMS.retry_send(uuid, force=True)
        work(app)
    assert provider.retried == [f"ref-{uuid}"]


def test_retrying_what_waits_sends_it_now(app: Flask, provider: Scripted) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello", send_at=datetime.now(UTC) + timedelta(hours=1))
        SMS.retry_send(uuid)
        work(app)
        assert SMS.get(uuid).status == "sent"
    assert provider.rang == {uuid: 1}


def test_an_unknown_message_waits_for_a_person(app: Flask, provider: Scripted) -> None:
    def vanish(_sms: Any) -> Any:
        raise OutcomeUnknown("the line went dead")

    provider.answer = vanish
    with app.app_context():
        uuids = [SMS.send_msg(TO, f"Hello {n}") for n in range(3)]
        work(app)
        assert {SMS.get(uuid).status for uuid in uuids} == {"unknown"}
        assert SMS.get(uuids[0]).due_at is None
        with pytest.raises(NotRetryable, match="resolve"):
            SMS.retry_send(uuids[0])
        provider.answer = None
        for uuid, decision in zip(uuids, ["sent", "resend", "drop"], strict=True):
            assert SMS.resolve(uuid, decision) == uuid
        work(app)
        assert [SMS.get(uuid).status for uuid in uuids] == ["sent", "sent", "failed"]
        assert provider.rang == {f"{uuids[1]}#2": 1}
        with pytest.raises(NotResolvable):
            SMS.resolve(uuids[0], "sent")
        with pytest.raises(InvalidQuery):
            SMS.resolve(uuids[0], "perhaps")
        # It was dropped, but it may have rung: that is still a risk.
        with pytest.raises(NotRetryable, match="may have arrived"):
            SMS.retry_send(uuids[2])


def test_decisions_are_in_the_story(app: Flask) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        SMS.cancel(uuid)
        SMS.retry_send(uuid)
        assert [event.kind for event in SMS.get(uuid).events] == ["cancelled", "retried"]


def test_a_retry_after_its_configuration_was_deleted_goes_by_the_default(
    app: Flask, provider: Scripted
) -> None:
    from flask_communication.configs import store

    other = Scripted()
    other.name = "other"
    number = install(app, other, key="other")
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello", key="other")
        store.delete(state_of(app), number)
        work(app)
        assert "was deleted" in (SMS.get(uuid).error or "")
        SMS.cancel(uuid)
        SMS.retry_send(uuid)
        work(app)
        assert SMS.get(uuid).status == "sent"
    assert not other.calls
    assert len(provider.calls) == 1


def test_pages_go_on_where_the_last_one_ended(app: Flask) -> None:
    with app.app_context():
        uuids = SMS.send_bulk([{"destination": TO, "msg": f"{n}"} for n in range(25)])
        seen, after = [], None
        while True:
            page = SMS.messages(limit=10, after=after)
            seen += [one.uuid for one in page.items]
            if page.next is None:
                break
            after = page.next
    assert sorted(seen) == sorted(uuids)
    assert len(seen) == 25


def test_pages_of_a_period_go_on_and_end(app: Flask) -> None:
    with app.app_context():
        uuids = SMS.send_bulk([{"destination": TO, "msg": f"{n}"} for n in range(5)])
        now = datetime.now(UTC)
        period: dict[str, Any] = {
            "since": now - timedelta(hours=1),
            "until": now + timedelta(hours=1),
        }
        first = SMS.messages(**period, limit=3)
        rest = SMS.messages(**period, limit=3, after=first.next)
        assert [len(first.items), len(rest.items), rest.next] == [3, 2, None]
        assert {one.uuid for one in (*first.items, *rest.items)} == set(uuids)
        past = {**period, "until": now - timedelta(minutes=1)}
        assert SMS.messages(**past, after=first.next).items == []


def test_what_waits_for_a_deleted_configuration_goes_by_the_default_one_when_retried(
    app: Flask, provider: Scripted
) -> None:
    gone = install(app, provider, key="gone")
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello", key="gone")
        store.delete(state_of(app), gone)
        work(app)
        assert "was deleted; retry_send sends by the default one" in str(SMS.get(uuid).error)
        SMS.retry_send(uuid)
        work(app)
        assert (SMS.get(uuid).status, SMS.get(uuid).config_id) == ("sent", 1)


def test_pages_are_filtered(app: Flask) -> None:
    with app.app_context():
        mine = SMS.send_msg("+15550100001", "Hello")
        SMS.send_msg(TO, "Hello")
        SMS.cancel(mine)
        now = datetime.now(UTC)
        for filters in (
            {"destination": "+15550100001"},
            {"status": "cancelled"},
            {"status": "cancelled", "key": "1", "since": now - timedelta(hours=1)},
        ):
            assert [one.uuid for one in SMS.messages(**filters).items] == [mine]
        assert SMS.messages(until=now - timedelta(hours=1)).items == []


@pytest.mark.parametrize(
    "filters",
    [
        {"status": "sleeping"},
        {"limit": 0},
        {"limit": 501},
        {"limit": "10"},
        {"after": "1 OR 1=1"},
        {"after": "9" * 30},
        {"after": "99999999999999999999-1"},
        {"after": "20261124000000000000-x"},
        {"since": datetime(2020, 1, 1)},
        {"until": "yesterday"},
        {"key": "nobody"},
        {"since": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))},
        {"until": datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-14)))},
    ],
)
def test_a_filter_that_makes_no_sense_is_named(app: Flask, filters: dict[str, Any]) -> None:
    with app.app_context(), pytest.raises(InvalidQuery) as wrong:
        SMS.messages(**filters)
    assert list(wrong.value.errors) == list(filters)


def test_reports_are_asked_for_and_applied(app: Flask, provider: Scripted) -> None:
    with app.app_context():
        first, second, third = [SMS.send_msg(TO, f"{n}") for n in range(3)]
        work(app)
        provider.reports = {f"ref-{first}": "delivered", f"ref-{second}": "sent"}
        assert SMS.sync_delivery_report() == (3, 1, 2)
        assert [SMS.get(one).status for one in (first, second, third)] == [
            "delivered",
            "sent",
            "sent",
        ]
        event = SMS.get(first).events[0]
        assert (event.kind, event.status, event.applied) == ("report", "delivered", True)
        # Told again, it is neither stored nor applied again.
        provider.reports[f"ref-{second}"] = "delivered"
        assert SMS.sync_delivery_report() == (2, 1, 1)
        assert len(SMS.get(second).events) == 2


def test_a_provider_that_fails_to_report_stops_nobody(app: Flask, provider: Scripted) -> None:
    class Mute(Scripted):
        name = "mute"

        def sms_reports(self, refs: Any, config: Any) -> Any:
            raise NotSent("connection refused")

    install(app, Mute(), key="mute")
    with app.app_context():
        SMS.send_msg(TO, "Hello", key="mute")
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        provider.reports[f"ref-{uuid}"] = "delivered"
        assert SMS.sync_delivery_report() == (2, 1, 1)


def set_status(app: Flask, status: str) -> None:
    from sqlalchemy import text

    with state_of(app).database.write() as connection:
        connection.execute(text("UPDATE communication_message SET status = :s"), {"s": status})
