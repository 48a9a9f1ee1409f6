"""Retention by age, and the erasure of a recipient."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text

from flask_communication import SMS, Email
from flask_communication.configs.settings import Settings
from flask_communication.configs.state import state_of
from flask_communication.delivery.worker.worker import Worker
from flask_communication.errors import InvalidQuery, MessageNotFound, NotRetryable, SettingError
from flask_communication.storage import retention
from flask_communication.storage.models import CHANNELS, Usage
from flask_communication.storage.models.operation import hash_recipient
from tests.support.apps import MakeApp, install, work
from tests.support.providers import Scripted

TO, OTHER = "+919999911111", "+919999922222"


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str) -> Flask:
    app = make_app(
        upgraded_url,
        COMMUNICATION_KEEP_BODIES_DAYS=10,
        COMMUNICATION_KEEP_MESSAGES_DAYS=100,
        COMMUNICATION_DEFAULT_SENDER="shop@example.com",
    )
    install(app, Scripted())
    return app


def set_rows(app: Flask, where: str = "1 = 1", **columns: Any) -> None:
    sets = ", ".join(f"{name} = :{name}" for name in columns)
    with state_of(app).database.write() as connection:
        connection.execute(text(f"UPDATE communication_message SET {sets} WHERE {where}"), columns)


def days_ago(app: Flask, days: int) -> str:
    sql = {
        "sqlite": f"SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now', '-{days} days')",
        "postgresql": f"SELECT CAST(now() - interval '{days} days' AS text)",
    }[state_of(app).database.dialect.name]
    with state_of(app).database.read() as connection:
        return str(connection.execute(text(sql)).scalar())


def policy(app: Flask) -> dict[str, float | None]:
    settings = state_of(app).settings
    return {
        "messages_days": settings.keep_messages_days,
        "bodies_days": settings.keep_bodies_days,
    }


def sweep(app: Flask) -> dict[str, int]:
    done: dict[str, int] = {}
    for what, count in retention.sweep(state_of(app).database, **policy(app)):
        done[what] = done.get(what, 0) + count
    return done


def test_texts_go_first_and_messages_later(app: Flask) -> None:
    with app.app_context():
        uuids = [SMS.send_msg(TO, f"Hello {n}", metadata={"n": n}) for n in range(7)]
        set_rows(app, status="delivered", due_at=None)
        set_rows(app, "id <= 5", created_at=days_ago(app, 11))
        set_rows(app, "id <= 2", created_at=days_ago(app, 101))
        assert retention.preview(state_of(app).database, **policy(app)) == {
            "messages to delete": 2,
            "texts to remove": 5,
        }
        assert sweep(app) == {"messages deleted": 2, "texts removed": 3}
        assert sweep(app) == {}
        with pytest.raises(MessageNotFound):
            SMS.get(uuids[0])
        stripped, whole = SMS.get(uuids[3]), SMS.get(uuids[6])
        assert (stripped.body, stripped.meta, stripped.destination) == ("", None, TO)
        assert (whole.body, whole.meta) == ("Hello 6", {"n": 6})
        with pytest.raises(NotRetryable, match="retention policy"):
            SMS.retry_send(uuids[3], force=True)


@pytest.mark.parametrize("status", ["queued", "sending", "held", "unknown", "sent"])
def test_what_waits_is_never_touched(app: Flask, status: str) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        set_rows(app, status=status, created_at=days_ago(app, 500))
        assert sweep(app) == {}
        assert SMS.get(uuid).body == "Hello"


def test_more_than_one_batch_and_more_than_one_sweeper(app: Flask) -> None:
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": f"Hello {n}"} for n in range(1200)])
        set_rows(app, status="delivered", due_at=None, created_at=days_ago(app, 11))
        database = state_of(app).database
        one, two = (retention.sweep(database, **policy(app)) for _ in range(2))
        counts = [
            next(one)[1],
            next(two)[1],
            *(count for _, count in one),
            *(count for _, count in two),
        ]
        assert sum(counts) == 1200
        assert max(counts) == retention.BATCH


def test_one_process_sweeps_in_an_hour(app: Flask) -> None:
    assert retention.is_my_turn(state_of(app).database)
    assert not retention.is_my_turn(state_of(app).database)


def test_a_worker_sweeps_by_itself_when_nothing_is_due(app: Flask) -> None:
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        set_rows(app, status="delivered", due_at=None, created_at=days_ago(app, 11))
        Worker(state_of(app), sweep_after=0.0).burst()
        assert SMS.get(uuid).body == ""


def test_files_go_when_no_email_carries_them(app: Flask) -> None:
    install(app, Scripted(), type="email")
    with app.app_context():
        Email(to="ann@example.com", body="Hello").attach(b"old", "a.txt").send()
        Email(to="bob@example.com", body="Hello").attach(b"both", "a.txt").send()
        set_rows(app, status="sent", due_at=None, created_at=days_ago(app, 11))
        Email(to="eve@example.com", body="Hello").attach(b"both", "a.txt").send()
        with state_of(app).database.write() as connection:
            connection.execute(
                text("UPDATE communication_file SET created_at = :then"),
                {"then": days_ago(app, 11)},
            )
        assert sweep(app) == {"texts removed": 2, "files dropped": 1}


def test_erasing_a_person_takes_everything_but_what_is_being_sent(app: Flask) -> None:
    install(app, Scripted(), type="email")
    with app.app_context():
        mine = [SMS.send_msg(TO, f"Hello {n}") for n in range(3)]
        other = SMS.send_msg(OTHER, "Hello")
        letter = Email(to=["ann@example.com", "bob@example.com"], body="Hello").send()
        set_rows(app, f"uuid = '{mine[0]}'", status="sending")
        assert SMS.erase(TO) == (2, 1)
        set_rows(app, f"uuid = '{mine[0]}'", status="sent", due_at=None)
        assert SMS.erase(TO) == (1, 0)
        assert SMS.get(other).status == "queued"
        assert SMS.erase("bob@example.com") == (0, 0)
        assert Email.erase("bob@example.com") == (1, 0)
        with pytest.raises(MessageNotFound):
            Email.get(letter)


def test_only_the_channels_that_are_named_are_erased(app: Flask) -> None:
    install(app, Scripted(), type="email")
    database = state_of(app).database
    with app.app_context():
        letter = Email(to="ann@example.com", body="Hello").send()
        SMS.receive(source="Ann@example.com", destination="12345", msg="an SMS by a gateway")
        sms = SMS.send_msg(TO, "Hello")
        erase = partial(retention.erase, database, "IN")
        assert erase("ann@example.com", ["sms"]) == (1, 0)
        assert Email.get(letter).status == "queued"
        assert erase("99999 11111", ["email", "telephony"]) == (0, 0)
        assert SMS.get(sms).status == "queued"
        assert erase("99999 11111", ["sms"]) == (1, 0)
        assert erase("ANN@example.com", ["email"]) == (1, 0)
        assert SMS.messages().items == Email.messages().items == []


def test_erasing_drops_what_the_limits_counted_on_these_channels(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app = make_app(upgraded_url, COMMUNICATION_LIMIT_PER_RECIPIENT=[(10, 3600)])
    install(app, Scripted())
    database = state_of(app).database
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        work(app)
        assert counted(app, TO) == 1
        retention.erase(database, None, TO, ["email"])
        assert counted(app, TO) == 1
        retention.erase(database, None, TO, ["sms"])
        assert counted(app, TO) == 0


def counted(app: Flask, recipient: str) -> int:
    with state_of(app).database.session() as session:
        found = session.scalars(select(Usage.scope)).all()
    return sum(scope.endswith(hash_recipient(recipient)) for scope in found)


@pytest.mark.parametrize("nobody", ["", "  ", None])
def test_an_empty_recipient_erases_nothing(app: Flask, nobody: Any) -> None:
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        with pytest.raises(InvalidQuery, match="recipient"):
            retention.erase(state_of(app).database, None, nobody, CHANNELS)
        assert len(SMS.messages().items) == 1


def test_the_command_line_prunes_and_erases(app: Flask) -> None:
    runner = app.test_cli_runner()
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        set_rows(app, status="delivered", due_at=None, created_at=days_ago(app, 11))
    assert "1 texts to remove" in runner.invoke(args=["communication", "prune", "--dry-run"]).output
    assert runner.invoke(args=["communication", "prune"]).output == "1 texts removed\n"
    assert runner.invoke(args=["communication", "prune"]).output == "nothing to do\n"
    assert runner.invoke(args=["communication", "erase", TO], input="n\n").exit_code == 1
    assert (
        "1 messages deleted" in runner.invoke(args=["communication", "erase", TO, "--yes"]).output
    )


@pytest.mark.parametrize("days", [0, -1, "30", True, 1e9])
def test_days_that_are_none_are_refused(days: Any) -> None:
    with pytest.raises(SettingError, match="COMMUNICATION_KEEP_MESSAGES_DAYS"):
        Settings.from_config({"COMMUNICATION_KEEP_MESSAGES_DAYS": days})


def test_texts_are_not_kept_longer_than_messages() -> None:
    with pytest.raises(SettingError, match="must not be more"):
        Settings.from_config(
            {"COMMUNICATION_KEEP_MESSAGES_DAYS": 1, "COMMUNICATION_KEEP_BODIES_DAYS": 2}
        )
