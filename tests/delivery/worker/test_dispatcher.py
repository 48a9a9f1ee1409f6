"""Attending to due rows: outcomes, back-off, doubt, leases, batches."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from flask_communication import SMS, signals
from flask_communication.configs.state import state_of
from flask_communication.delivery import outbox
from flask_communication.delivery.transitions import Claim, Settlement, Start
from flask_communication.delivery.worker.dispatcher import persist
from flask_communication.errors import DatabaseError, NotRetryable
from flask_communication.providers.base import (
    Accepted,
    Capabilities,
    NotSent,
    OutcomeUnknown,
    Refused,
)
from flask_communication.storage.models import Message
from tests.support.apps import TO, MakeApp, install, make_due, statements_of, work
from tests.support.providers import Bulky, Scripted, raising


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, provider: Scripted) -> Flask:
    app = make_app(upgraded_url)
    install(app, provider)
    return app


def back_off(message: Message) -> float:
    """Return how long after its last attempt a message is due again (the database's clock)."""
    ended = message.attempts[-1].ended_at
    assert message.due_at is not None
    assert ended is not None
    return (message.due_at - ended).total_seconds()


def test_what_was_not_sent_is_tried_again_later_and_later(app: Flask, provider: Scripted) -> None:
    provider.answer = raising(NotSent("connection refused"))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        for expected in (5, 15, 30, 60, 120, 300, 300):
            work(app)
            message = SMS.get(uuid)
            assert message.status == "queued"
            assert message.error == "connection refused"
            assert expected * 0.7 < back_off(message) < expected * 1.3
            make_due(app)
        provider.answer = None
        work(app)
        message = SMS.get(uuid)
    assert message.status == "sent"
    assert message.error is None
    assert [one.state for one in message.attempts] == ["not_sent"] * 7 + ["accepted"]
    assert {one.key for one in message.attempts} == {uuid}


@pytest.mark.parametrize(("asked", "waited"), [(100.0, 100.0), (10.0**9, 3600.0), (0.0, 5.0)])
def test_retry_after_is_honoured_within_an_hour(
    app: Flask, provider: Scripted, asked: float, waited: float
) -> None:
    provider.answer = raising(NotSent("slow down", retry_after=asked, http_status=429))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        assert waited * 0.7 < back_off(SMS.get(uuid)) < waited * 1.3


def test_a_retry_is_never_put_off_beyond_the_expiry(app: Flask, provider: Scripted) -> None:
    provider.answer = raising(NotSent("slow down", retry_after=3600.0))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        make_due(app, expires_at="2099-01-01 00:00:00.000000")
        work(app)
        message = SMS.get(uuid)
        assert message.due_at is not None
        assert message.due_at <= message.expires_at


def test_an_exception_nobody_foresaw_is_an_unknown_outcome(app: Flask, provider: Scripted) -> None:
    provider.answer = raising(ZeroDivisionError("secret words"))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        message = SMS.get(uuid)
    assert message.status == "unknown"
    assert message.error == "the provider failed in an unforeseen way: ZeroDivisionError"


def test_doubt_is_repeated_only_where_the_provider_ignores_repeats(
    app: Flask, provider: Scripted
) -> None:
    def rings_but_does_not_answer(sms: Any) -> Accepted:
        provider.ring(sms)
        raise OutcomeUnknown("read timeout")

    provider.idempotency_window = 3600.0
    provider.answer = rings_but_does_not_answer
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        message = SMS.get(uuid)
        assert message.status == "queued"
        assert message.repeat_until is not None
        provider.answer = None
        make_due(app)
        work(app)
        message = SMS.get(uuid)
    assert message.status == "sent"
    assert message.repeat_until is None
    assert [one.state for one in message.attempts] == ["unknown", "accepted"]
    assert provider.rang == {uuid: 1}


def test_doubt_waits_for_a_provider_that_has_not_told_yet_what_it_can(
    make_app: MakeApp, upgraded_url: str
) -> None:
    class Hesitant(Scripted):
        tries = 0

        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, known=self.tries > 2)

        def learn(self) -> Capabilities:
            self.tries += 1
            # It is asked when it is configured, before a message, and when one is in doubt.
            if self.tries < 3:
                raise ValueError("no provider should raise this")
            self.idempotency_window = 3600.0
            return self.capabilities

    app, provider = make_app(upgraded_url), Hesitant(raising(OutcomeUnknown("timed out")))
    install(app, provider)
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        assert (SMS.get(uuid).status, len(SMS.get(uuid).attempts)) == ("queued", 1)


def test_doubt_outlives_an_attempt_that_was_not_sent(app: Flask, provider: Scripted) -> None:
    provider.idempotency_window = 3600.0
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        provider.answer = raising(OutcomeUnknown("read timeout"))
        work(app)
        provider.answer = raising(NotSent("connection refused"))
        make_due(app)
        work(app)
        assert SMS.get(uuid).repeat_until is not None
        with pytest.raises(Exception, match="may have arrived"):
            SMS.cancel(uuid)
        # The window closes before it could be repeated: nobody knows, and nobody rings again.
        make_due(app, repeat_until="2020-01-01 00:00:00.000000")
        provider.answer = None
        work(app)
        assert SMS.get(uuid).status == "unknown"
    assert not provider.rang


def test_doubt_that_expires_is_unknown_and_not_expired(app: Flask, provider: Scripted) -> None:
    provider.idempotency_window = 3600.0
    provider.answer = raising(OutcomeUnknown("read timeout"))
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        make_due(app, expires_at="2020-01-01 00:00:00.000000")
        work(app)
        assert SMS.get(uuid).status == "unknown"


def test_a_wrong_password_does_not_end_a_doubt(app: Flask, provider: Scripted) -> None:
    provider.idempotency_window = 3600.0
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        provider.answer = raising(OutcomeUnknown("read timeout"))
        work(app)
        provider.answer = raising(Refused("bad credentials", http_status=401))
        make_due(app)
        work(app)
        assert SMS.get(uuid).status == "queued"
        assert SMS.get(uuid).repeat_until is not None


def strand(app: Flask) -> None:
    """Leave what is queued as a worker that dies during the call leaves it, its lease over."""
    state = state_of(app)
    with state.database.write() as connection:
        rows = outbox.claim(connection, 100)
        outbox.start(
            connection,
            [Start(one.id, one.fence, one.config_id or 0, one.key) for one in rows],
        )
    make_due(app)


def test_a_dead_workers_message_is_unknown_at_a_plain_provider(
    app: Flask, provider: Scripted
) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        strand(app)
        work(app)
        message = SMS.get(uuid)
    assert message.status == "unknown"
    assert message.error == "the worker stopped during the call"
    assert [one.state for one in message.attempts] == ["unknown"]
    assert [one.kind for one in message.events] == ["rescued"]
    assert not provider.calls


def test_a_dead_workers_message_goes_on_at_an_idempotent_provider(
    app: Flask, provider: Scripted
) -> None:
    provider.idempotency_window = 3600.0
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        strand(app)
        work(app)
        assert SMS.get(uuid).status == "sent"
    assert provider.rang == {uuid: 1}


def test_a_message_that_stops_three_workers_is_left_to_a_person(
    app: Flask, provider: Scripted
) -> None:
    provider.idempotency_window = 3600.0
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        make_due(app, crashes=2)
        strand(app)
        work(app)
        message = SMS.get(uuid)
    assert message.status == "unknown"
    assert "3 workers stopped" in (message.error or "")
    assert not provider.calls


def test_a_claim_that_was_never_dialled_becomes_due_again(app: Flask, provider: Scripted) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        with state_of(app).database.write() as connection:
            assert len(outbox.claim(connection, 10)) == 1
            assert outbox.claim(connection, 10) == []
        assert work(app) == 0
        make_due(app)
        work(app)
        assert SMS.get(uuid).status == "sent"
    assert provider.rang == {uuid: 1}


def settle_as(app: Flask, claim: Claim, status: str, state: str) -> set[int]:
    ref = "late-ref" if state == "accepted" else None
    settled = Settlement(claim.id, claim.fence, claim.uuid, claim.channel, status, state, ref=ref)
    with state_of(app).database.write() as connection:
        return outbox.settle(connection, [settled])


def start_of(claim: Claim) -> Start:
    return Start(claim.id, claim.fence, claim.config_id or 0, claim.key)


def start_one(app: Flask) -> Claim:
    with state_of(app).database.write() as connection:
        (claim,) = outbox.claim(connection, 1)
        outbox.start(connection, [start_of(claim)])
    return claim


def test_a_stale_worker_cannot_settle_what_another_holds(app: Flask) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        stale = start_one(app)
        make_due(app, status="queued")
        fresh = start_one(app)
        assert fresh.fence == stale.fence + 1
        assert settle_as(app, stale, "rejected", "rejected") == set()
        assert SMS.get(uuid).status == "sending"
        assert settle_as(app, fresh, "rejected", "rejected") == {fresh.id}


def test_a_refusal_of_an_earlier_try_does_not_clear_a_later_one(
    app: Flask, provider: Scripted
) -> None:
    provider.idempotency_window = 3600
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        with state_of(app).database.write() as connection:
            (first,) = outbox.claim(connection, 1)
            outbox.start(connection, [start_of(first)])
        make_due(app)
        provider.answer = raising(OutcomeUnknown("timed out"))
        work(app)  # rescued, repeated, and in doubt again
        assert settle_as(app, first, "rejected", "rejected") == set()  # the first worker wakes up
        make_due(app, repeat_until="2020-01-01 00:00:00.000000")
        work(app)
        assert SMS.get(uuid).status == "unknown"
        SMS.resolve(uuid, "drop")
        with pytest.raises(NotRetryable, match="an earlier try may have arrived"):
            SMS.retry_send(uuid)


def test_late_truth_wins_over_what_was_guessed(app: Flask) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        stale = start_one(app)
        make_due(app)
        work(app)
        assert SMS.get(uuid).status == "unknown"
        assert settle_as(app, stale, "sent", "accepted") == {stale.id}
        message = SMS.get(uuid)
    assert (message.status, message.provider_ref) == ("sent", "late-ref")
    assert [one.state for one in message.attempts] == ["accepted"]


def test_late_truth_reaches_a_message_that_another_is_sending(app: Flask) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        stale = start_one(app)
        make_due(app, status="queued")
        fresh = start_one(app)
        assert settle_as(app, stale, "sent", "accepted") == {stale.id}
        assert settle_as(app, fresh, "unknown", "unknown") == set()
        assert SMS.get(uuid).status == "sent"


def test_a_cancel_between_claim_and_start_wins(app: Flask) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        with state_of(app).database.write() as connection:
            (row,) = outbox.claim(connection, 1)
        SMS.cancel(uuid)
        with state_of(app).database.write() as connection:
            assert outbox.start(connection, [start_of(row)]) == set()
        assert SMS.get(uuid).attempts == []


def test_a_start_whose_answer_got_lost_may_be_repeated_by_its_holder_only(app: Flask) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        row = start_one(app)
        stale = replace(start_of(row), fence=row.fence - 1)
        with state_of(app).database.write() as connection:
            assert outbox.start(connection, [start_of(row)]) == {row.id}
            assert outbox.start(connection, [stale]) == set()
        assert len(SMS.get(uuid).attempts) == 1


def test_many_go_in_one_call_where_the_provider_can(make_app: MakeApp, upgraded_url: str) -> None:
    app, bulky = make_app(upgraded_url), Bulky()
    install(app, bulky)
    with app.app_context():
        uuids = SMS.send_bulk([{"destination": TO, "msg": f"{n}"} for n in range(350)])
        assert work(app) == 350
        assert {SMS.get(uuid).status for uuid in uuids[::50]} == {"sent"}
    assert bulky.rang == dict.fromkeys(uuids, 1)
    assert max(bulky.batches) == 100
    assert len(bulky.batches) < 20


def test_a_bulk_answer_of_the_wrong_length_is_an_unknown_outcome(
    make_app: MakeApp, upgraded_url: str
) -> None:
    class Forgetful(Bulky):
        def send_sms_bulk(self, batch: Any, config: Any) -> Any:
            return super().send_sms_bulk(batch, config)[1:]

    app = make_app(upgraded_url)
    install(app, Forgetful())
    with app.app_context():
        uuids = SMS.send_bulk([{"destination": TO, "msg": f"{n}"} for n in range(5)])
        work(app)
        assert {SMS.get(uuid).status for uuid in uuids} == {"unknown"}


def test_a_slow_call_does_not_hold_up_the_others(app: Flask, provider: Scripted) -> None:
    rang = threading.Semaphore(0)
    overtaken: list[bool] = []

    def answer(sms: Any) -> Accepted:
        if sms.msg == "slow":
            overtaken.extend(rang.acquire(timeout=60) for _ in range(60))
            return provider.ring(sms)
        rang.release()
        return provider.ring(sms)

    provider.answer = answer
    with app.app_context():
        slow = SMS.send_msg(TO, "slow", priority="high")
        uuids = SMS.send_bulk([{"destination": TO, "msg": "quick"}] * 60)
        work(app)
        assert {SMS.get(uuid).status for uuid in (slow, *uuids)} == {"sent"}
    assert overtaken == [True] * 60


def test_what_a_slow_provider_cannot_take_soon_is_left_to_other_workers(
    make_app: MakeApp, upgraded_sqlite_url: str, provider: Scripted
) -> None:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_CONCURRENCY=4)
    install(app, provider)
    held: list[int] = []

    def answer(sms: Any) -> Accepted:
        time.sleep(0.0 if held else 0.05)
        if sms.msg == "150":
            with state_of(app).database.read() as connection:
                taken = (
                    "SELECT count(*) FROM communication_message"
                    " WHERE status = 'queued' AND fence > 0"
                )
                held.append(connection.execute(text(taken)).scalar_one())
        return Accepted(sms.key)

    provider.answer = answer
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": str(number)} for number in range(300)])
        assert work(app) == 300
    # Doubled at every claim it would be more than 100.
    assert held[0] < 70, held


def test_a_disabled_configuration_keeps_its_messages_waiting(app: Flask) -> None:
    from flask_communication.configs import store

    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        row = store.listing(state_of(app))[0]
        store.change(state_of(app), row["id"], {**_seed(row), "enabled": False})
        work(app)
        message = SMS.get(uuid)
        assert message.status == "queued"
        assert "is disabled" in (message.error or "")
        store.change(state_of(app), row["id"], {**_seed(row), "enabled": True})
        make_due(app)
        work(app)
        assert SMS.get(uuid).status == "sent"


def _seed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("provider", "provider_pkg_name", "type", "config")}


def test_a_package_nobody_knows_keeps_its_messages_waiting(
    make_app: MakeApp, upgraded_url: str
) -> None:
    nobody = Scripted()
    nobody.name = "nobody"
    app = make_app(upgraded_url)
    install(app, nobody)
    state_of(app).registry._registered.clear()
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        message = SMS.get(uuid)
    assert message.status == "queued"
    assert "nobody" in (message.error or "")


def test_nobody_but_the_listed_is_reached(make_app: MakeApp, upgraded_url: str) -> None:
    provider = Scripted()
    app = make_app(upgraded_url, COMMUNICATION_ONLY_TO=["+15550100000"])
    install(app, provider)
    with app.app_context():
        stranger, friend = SMS.send_msg(TO, "Hello"), SMS.send_msg("+15550100000", "Hello")
        work(app)
        assert SMS.get(friend).status == "sent"
        message = SMS.get(stranger)
    assert (message.status, message.error) == (
        "rejected",
        "COMMUNICATION_ONLY_TO does not list the recipient",
    )
    assert [sms.destination for sms in provider.calls] == ["+15550100000"]


def test_everything_is_redirected_where_the_host_says(make_app: MakeApp, upgraded_url: str) -> None:
    provider = Scripted()
    app = make_app(upgraded_url, COMMUNICATION_REDIRECT_TO="+15550100000")
    install(app, provider)
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        assert SMS.get(uuid).destination == TO
    assert [sms.destination for sms in provider.calls] == ["+15550100000"]


def test_the_host_is_told_by_signals(app: Flask, provider: Scripted) -> None:
    told: list[tuple[str, str]] = []

    def listen(sender: Flask, *, message_uuid: str, status: str, **_kwargs: Any) -> None:
        assert sender is app
        told.append((message_uuid, status))

    def fail(_sender: Flask, **_kwargs: Any) -> None:
        raise RuntimeError("a receiver of the host")

    with (
        signals.message_sent.connected_to(fail),
        signals.message_sent.connected_to(listen),
        signals.message_delivered.connected_to(listen),
        app.app_context(),
    ):
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        provider.reports[f"ref-{uuid}"] = "delivered"
        SMS.sync_delivery_report()
    assert told == [(uuid, "sent"), (uuid, "delivered")]


def test_a_provider_that_gives_two_messages_one_id_is_complained_of(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Scripted(lambda _sms: Accepted("the same"))
    install(app, provider)
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": text} for text in ("one", "two")])
        work(app)
        provider.reports["the same"] = "delivered"
        SMS.sync_delivery_report()
    assert "calls 2 messages by one id, the same" in caplog.text


def statements(app: Flask, number: int) -> int:
    """Count the SQL statements that one worker needs for ``number`` messages."""
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": "Hello"}] * number)
        with statements_of(app) as said:
            assert work(app) == number
    return len(said)


def test_what_a_call_has_told_is_written_again_until_the_database_takes_it() -> None:
    troubles: list[Exception] = [
        OperationalError("UPDATE", {}, Exception("server closed the connection")),
        DatabaseError("SQLite stayed locked by another transaction"),
    ]

    def write() -> str:
        if troubles:
            raise troubles.pop()
        return "written"

    assert persist(write) == "written"


def test_statements_do_not_grow_with_the_batch(make_app: MakeApp, upgraded_url: str) -> None:
    app, bulky = make_app(upgraded_url, COMMUNICATION_CONCURRENCY=500), Bulky()
    bulky.bulk_limit = 500
    install(app, bulky)
    few = statements(app, 10)
    many = statements(app, 500)
    # A full claim is followed by one more look.
    assert many <= few + 6, (few, many)


def test_open_work_is_found_through_the_index(make_app: MakeApp, upgraded_sqlite_url: str) -> None:
    # On SQLite, whose plans do not depend on statistics.
    state = state_of(make_app(upgraded_sqlite_url))
    query = (
        "EXPLAIN QUERY PLAN SELECT id FROM communication_message WHERE status = 'queued'"
        f" AND priority = 5 AND due_at <= {state.database.dialect.now} ORDER BY due_at LIMIT 10"
    )
    with state.database.read() as connection:
        plan = str(connection.execute(text(query)).all())
    assert "ix_communication_message_due" in plan
    assert "TEMP B-TREE" not in plan
