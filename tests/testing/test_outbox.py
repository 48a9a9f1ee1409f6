"""The fixture of hosts' tests: nothing leaves, and what would have is a list."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from redis import Redis
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from flask_communication import SMS, Communication, Email, signals
from flask_communication.errors import ConfigNotFound, SessionConflict
from flask_communication.testing.outbox import Outbox
from tests.support.apps import TO, MakeApp, allow, install, work
from tests.support.loopback import server
from tests.support.providers import Scripted
from tests.support.waiting import wait_until


def shop(url: str, **config: Any) -> Flask:
    """Make an application as a host's factory does, with its tables and one route."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="of a test", SQLALCHEMY_DATABASE_URI=url, TESTING=True, **config)
    db = SQLAlchemy(app)
    communication = Communication(app, db, authorize=allow)
    app.extensions["db of the shop"] = db

    @app.post("/orders")
    def order() -> dict[str, str]:
        uuid = SMS.send_msg(TO, "Thank you", session=db.session)
        db.session.commit()
        return {"sms": uuid}

    with app.app_context():
        db.session.execute(text("CREATE TABLE IF NOT EXISTS note (words VARCHAR(20))"))
        db.session.commit()
        communication.upgrade(app)
    return app


def session_of(app: Flask) -> Any:
    return app.extensions["db of the shop"].session


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "sqlite://"
    return str(request.getfixturevalue(f"upgraded_{request.param}_url"))


@pytest.fixture
def app(url: str) -> Flask:
    return shop(url)


@pytest.fixture(autouse=True)
def no_worker_starts() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for one in set(threading.enumerate()) - before:
        # A worker that the test stopped is on its way out; one that starts by itself is not.
        if one.name.startswith("communication-"):
            one.join(30)
            assert not one.is_alive(), one.name


def test_what_a_route_sends_is_listed(communication_outbox: Outbox, app: Flask) -> None:
    answer = app.test_client().post("/orders")
    assert len(communication_outbox) == 1
    sms = communication_outbox.sms[0]
    assert (sms.destination, sms.msg, sms.status) == (TO, "Thank you", "queued")
    assert sms.uuid == answer.get_json()["sms"]
    assert communication_outbox.email == []


def test_what_comes_over_rest_is_listed(communication_outbox: Outbox, app: Flask) -> None:
    client = app.test_client()
    client.post("/communication/sms/send/", json={"destination": TO, "msg": "Hello"})
    mail = {"to": "ann@example.com", "subject": "Hi", "body": "Hello", "sender": "shop@example.com"}
    assert client.post("/communication/email/send/", json=mail).status_code == 200
    assert [type(one).__name__ for one in communication_outbox] == ["SentSMS", "SentEmail"]
    assert communication_outbox.email[0].subject == "Hi"


def test_all_of_an_email_can_be_looked_at(communication_outbox: Outbox, app: Flask) -> None:
    with app.app_context():
        email = Email(
            to="Ann <ann@example.com>",
            cc=["bob@example.com"],
            bcc="eve@example.com",
            subject="Your bill",
            body="17 EUR",
            html="<p>17 EUR</p>",
            sender="shop@example.com",
            headers={"X-Order": "17"},
        )
        uuid = email.attach(b"%PDF", "bill.pdf").send(metadata={"order": 17})
    (sent,) = communication_outbox.email
    assert (sent.uuid, sent.subject, sent.body, sent.html) == (
        uuid,
        "Your bill",
        "17 EUR",
        "<p>17 EUR</p>",
    )
    assert (sent.to, sent.cc, sent.bcc) == (
        ["Ann <ann@example.com>"],
        ["bob@example.com"],
        ["eve@example.com"],
    )
    assert (sent.sender, sent.destination) == ("shop@example.com", "ann@example.com")
    assert sent.recipients == ["ann@example.com", "bob@example.com", "eve@example.com"]
    assert sent.headers["X-Order"] == "17"
    assert (sent.files[0].filename, sent.files[0].content) == ("bill.pdf", b"%PDF")
    assert (sent.metadata, sent.message.priority) == ({"order": 17}, 5)


def test_they_are_in_the_order_of_acceptance(communication_outbox: Outbox, app: Flask) -> None:
    with app.app_context():
        SMS.send_bulk([{"destination": TO, "msg": str(number)} for number in range(3)])
        SMS.send_msg(TO, "3", priority="high")
    assert [one.msg for one in communication_outbox.sms] == ["0", "1", "2", "3"]
    assert communication_outbox[0].uuid == communication_outbox.sms[0].uuid
    assert [one.uuid for one in communication_outbox[2:]] == [
        s.uuid for s in communication_outbox.sms[2:]
    ]


def test_only_what_is_committed_is_there(communication_outbox: Outbox, app: Flask) -> None:
    with app.app_context():
        session = session_of(app)
        SMS.send_msg(TO, "first")
        SMS.send_msg(TO, "second", session=session)
        assert [one.msg for one in communication_outbox.sms] == ["first"]
        session.rollback()
        assert [one.msg for one in communication_outbox.sms] == ["first"]
        SMS.send_msg(TO, "third", session=session)
        session.commit()
        assert [one.msg for one in communication_outbox.sms] == ["first", "third"]


def test_a_savepoint_that_is_rolled_back_takes_its_message_along(
    communication_outbox: Outbox, app: Flask
) -> None:
    with app.app_context():
        session = session_of(app)
        session.execute(text("INSERT INTO note VALUES ('kept')"))
        SMS.send_msg(TO, "kept", session=session)
        savepoint = session.begin_nested()
        SMS.send_msg(TO, "undone", session=session)
        savepoint.rollback()
        with session.begin_nested():
            SMS.send_msg(TO, "kept too", session=session)
        assert len(communication_outbox) == 0
        session.commit()
    assert [one.msg for one in communication_outbox.sms] == ["kept", "kept too"]


def test_a_look_does_not_undo_what_is_not_committed(
    communication_outbox: Outbox, app: Flask
) -> None:
    with app.app_context():
        session = session_of(app)
        SMS.send_msg(TO, "first")
        session.execute(text("INSERT INTO note VALUES ('mine')"))
        assert len(communication_outbox) == 1
        session.commit()
        assert session.scalar(text("SELECT count(*) FROM note")) == 1


def test_a_session_within_the_transaction_of_its_test_is_looked_through(
    communication_outbox: Outbox, upgraded_postgresql_url: str
) -> None:
    # Not on SQLite, whose driver commits at the end of a savepoint that it did not see begin.
    app, engine = shop(upgraded_postgresql_url), create_engine(upgraded_postgresql_url)
    with app.app_context(), engine.connect() as connection:
        SMS.send_msg(TO, "first")
        whole = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            SMS.send_msg(TO, "second", session=session)
            session.commit()
        assert [one.msg for one in communication_outbox.sms] == ["first", "second"]
        whole.rollback()
        assert [one.msg for one in communication_outbox.sms] == ["first"]
    engine.dispose()


def test_the_same_key_is_there_once(communication_outbox: Outbox, app: Flask) -> None:
    with app.app_context():
        for _ in range(2):
            SMS.send_msg(TO, "Hello", idempotency_key="order 17")
    assert len(communication_outbox) == 1


def test_what_was_cancelled_would_not_have_left(communication_outbox: Outbox, app: Flask) -> None:
    with app.app_context():
        SMS.cancel(SMS.send_msg(TO, "Hello"))
    assert len(communication_outbox) == 0


def test_what_was_there_before_is_not_listed(url: str, request: pytest.FixtureRequest) -> None:
    app = shop(url, COMMUNICATION_EMBEDDED_WORKER=False)
    install(app, Scripted())
    with app.app_context():
        SMS.send_msg(TO, "early")
        communication_outbox = request.getfixturevalue("communication_outbox")
        SMS.send_msg(TO, "Hello")
        assert [one.msg for one in communication_outbox.sms] == ["Hello"]


@pytest.mark.usefixtures("communication_outbox")
def test_a_channel_without_a_configuration_gets_one_and_a_wrong_key_none(app: Flask) -> None:
    with app.app_context():
        with pytest.raises(ConfigNotFound):
            SMS.send_msg(TO, "Hello", key="misspelt")
        SMS.send_msg(TO, "Hello", session=session_of(app))
        session_of(app).rollback()
        SMS.send_msg(TO, "Hello")
    listed = app.test_client().get("/communication/config/list/").get_json()["data"]
    assert [(one["provider_pkg_name"], one["is_default"]) for one in listed] == [
        ("simulator", True)
    ]


def test_threads_that_send_at_once_make_one_configuration(
    communication_outbox: Outbox, upgraded_postgresql_url: str
) -> None:
    app = shop(upgraded_postgresql_url)

    def send(number: int) -> None:
        with app.app_context():
            SMS.send_msg(TO, str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))
    assert len(communication_outbox) == 8


def test_its_key_names_the_configuration(communication_outbox: Outbox, app: Flask) -> None:
    install(app, Scripted(), key="otp")
    with app.app_context():
        SMS.send_msg(TO, "1234", key="otp")
    assert communication_outbox.sms[0].key == "otp"


def test_deliver_moves_statuses_and_reaches_nobody(
    communication_outbox: Outbox, app: Flask
) -> None:
    provider = Scripted()
    install(app, provider)
    told: list[str] = []

    def hear(_sender: Flask, status: str, **_more: Any) -> None:
        told.append(status)

    with (
        signals.message_sent.connected_to(hear, app),
        signals.message_delivered.connected_to(hear, app),
    ):
        with app.app_context():
            SMS.send_msg(TO, "Hello")
            Email(
                to="ann@example.com", subject="Hi", body="Hello", sender="shop@example.com"
            ).send()
        communication_outbox.deliver()
    assert [one.status for one in communication_outbox] == ["delivered", "delivered"]
    assert sorted(told) == ["delivered", "delivered", "sent", "sent"]
    assert (provider.calls, provider.asked) == ([], [])


def test_magic_numbers_tell_their_stories(communication_outbox: Outbox, app: Flask) -> None:
    install(app, Scripted())
    with app.app_context():
        for digit in (0, 1, 3, 5, 6, 8):
            SMS.send_msg(f"+1555010000{digit}", "Hello")
    communication_outbox.deliver()
    assert [one.status for one in communication_outbox.sms] == (
        ["delivered", "undelivered", "rejected", "sent", "unknown", "read"]
    )


def test_deliver_leaves_to_your_transaction_what_is_yours(
    communication_outbox: Outbox, upgraded_sqlite_url: str
) -> None:
    app = shop(upgraded_sqlite_url)
    with app.app_context():
        session = session_of(app)
        SMS.send_msg(TO, "first")
        SMS.send_msg(TO, "second", session=session)
        with pytest.raises(SessionConflict):
            communication_outbox.deliver()
        session.commit()
        communication_outbox.deliver()
    assert [one.status for one in communication_outbox] == ["delivered", "delivered"]


def test_what_a_person_sends_again_is_listed(url: str, request: pytest.FixtureRequest) -> None:
    app, provider = shop(url, COMMUNICATION_EMBEDDED_WORKER=False), Scripted()
    install(app, provider)
    with app.app_context():
        early = SMS.send_msg(TO, "early")
    work(app)
    communication_outbox = request.getfixturevalue("communication_outbox")
    with app.app_context():
        SMS.retry_send(early, force=True)
        assert [(one.uuid, one.status) for one in communication_outbox.sms] == [(early, "queued")]
        communication_outbox.deliver()
        SMS.retry_send(early, force=True)
    assert [one.uuid for one in communication_outbox.sms] == [early]
    assert len(provider.calls) == 1


def test_what_was_held_and_is_released_is_listed(url: str, request: pytest.FixtureRequest) -> None:
    app = shop(url, COMMUNICATION_EMBEDDED_WORKER=False, COMMUNICATION_ALLOWED_COUNTRIES=["+1"])
    install(app, Scripted())
    with app.app_context():
        one, *others = (SMS.send_msg(TO, "early") for _ in range(3))
    work(app)
    communication_outbox = request.getfixturevalue("communication_outbox")
    with app.app_context():
        SMS.release(one)
        assert [sms.uuid for sms in communication_outbox.sms] == [one]
    app.test_cli_runner().invoke(args=["communication", "release", "--all"])
    assert {sms.uuid for sms in communication_outbox.sms} == {one, *others}
    communication_outbox.deliver()
    assert {sms.status for sms in communication_outbox.sms} == {"delivered"}


def test_what_is_unknown_is_not_repeated(communication_outbox: Outbox, app: Flask) -> None:
    install(app, Scripted(window=3600))
    with app.app_context():
        SMS.send_msg("+15550100006", "Hello")
    communication_outbox.deliver()
    assert communication_outbox.sms[0].status == "unknown"


def test_clear_forgets(communication_outbox: Outbox, app: Flask) -> None:
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        communication_outbox.clear()
        SMS.send_msg(TO, "World")
    assert [one.msg for one in communication_outbox.sms] == ["World"]


def test_a_worker_that_runs_already_rests(
    upgraded_url: str, make_app: MakeApp, request: pytest.FixtureRequest
) -> None:
    app, provider = make_app(upgraded_url, COMMUNICATION_EMBEDDED_WORKER=True), Scripted()
    install(app, provider)
    with app.app_context():
        before = SMS.send_msg(TO, "before")
        wait_until(lambda: SMS.get(before).status == "sent")
        outbox = request.getfixturevalue("communication_outbox")
        SMS.send_msg(TO, "Hello")
        time.sleep(1.5)
        assert [one.status for one in outbox.sms] == ["queued"]
    assert [one.msg for one in provider.calls] == ["before"]


def test_a_worker_of_the_host_meets_stand_ins_only(
    communication_outbox: Outbox, app: Flask
) -> None:
    provider = Scripted()
    install(app, provider)
    with app.app_context():
        SMS.send_msg(TO, "Hello")
    work(app)
    assert communication_outbox.sms[0].status == "sent"
    assert app.test_cli_runner().invoke(args=["communication", "worker", "--burst"]).exit_code == 0
    with app.app_context():
        SMS.sync_delivery_report()
        Email.sync_inbox()
    assert (provider.calls, provider.asked) == ([], [])
    assert communication_outbox.sms[0].status == "delivered"


def test_no_remote_provider_is_called(communication_outbox: Outbox, upgraded_url: str) -> None:
    called: list[str] = []

    def behave(_connection: socket.socket) -> None:
        called.append("called")

    with server(behave) as address:
        app = shop(upgraded_url, COMMUNICATION_PROVIDERS={"acme": {"url": address}})
        client = app.test_client()
        made = {"type": "sms", "provider": "", "provider_pkg_name": "acme", "config": {}}
        assert client.post("/communication/config/create", json=made).status_code == 200
        client.post("/orders")
        communication_outbox.deliver()
    assert communication_outbox.sms[0].status == "delivered"
    assert called == []


def test_no_bell_is_rung(communication_outbox: Outbox, upgraded_url: str, redis_url: str) -> None:
    app, redis = shop(upgraded_url, COMMUNICATION_REDIS_URL=redis_url), Redis.from_url(redis_url)
    before = redis.keys()
    app.test_client().post("/orders")
    with app.app_context():
        SMS.send_msg(TO, "Hello")
    assert len(communication_outbox) == 2
    assert redis.keys() == before


def test_what_waits_when_the_test_ends_is_cancelled(
    pytester: pytest.Pytester, upgraded_url: str
) -> None:
    pytester.makeconftest(
        f"""
        pytest_plugins = ["flask_communication.testing"]
        import pytest
        from tests.testing.test_outbox import shop

        @pytest.fixture(scope="session")
        def application():
            return shop({upgraded_url!r})
        """
    )
    pytester.makepyfile(
        """
        from flask_communication import SMS

        def test_one(communication_outbox, application):
            with application.app_context():
                SMS.send_msg("+919999911111", "Hello")
            assert communication_outbox.sms[0].destination == "+919999911111"

        def test_two(communication_outbox, application):
            assert len(communication_outbox) == 0
            with application.app_context():
                assert [one.status for one in SMS.messages().items] == ["cancelled"]
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_an_application_that_is_gone_does_not_fail_the_test(
    pytester: pytest.Pytester, upgraded_postgresql_url: str
) -> None:
    pytester.makepyfile(
        f"""
        from flask_communication import SMS
        from sqlalchemy import text
        from tests.testing.test_outbox import session_of, shop

        def test_one(communication_outbox):
            app = shop({upgraded_postgresql_url!r})
            with app.app_context():
                SMS.send_msg("+919999911111", "Hello")
                session_of(app).execute(text("DROP TABLE communication_message CASCADE"))
                session_of(app).commit()
        """
    )
    result = pytester.runpytest_inprocess(
        "-p", "flask_communication.testing", "-p", "no:cacheprovider"
    )
    result.assert_outcomes(passed=1)


def test_the_documentations_examples_pass(pytester: pytest.Pytester) -> None:
    text = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    about = text.partition("## A provider")[0]
    conftest, *examples = re.findall(r"^```python\n(.*?)^```$", about, re.MULTILINE | re.DOTALL)
    pytester.makeconftest(
        conftest
        + """
import pytest
from flask import request
from flask_communication import SMS
from tests.testing.test_outbox import session_of, shop

@pytest.fixture
def app():
    app = shop("sqlite://")

    def order():
        given = request.get_json()
        SMS.send_msg(given["phone"], "Thank you", session=session_of(app))
        session_of(app).rollback() if "card" in given else session_of(app).commit()
        return {}

    app.view_functions["order"] = order
    return app

@pytest.fixture
def client(app):
    return app.test_client()
"""
    )
    pytester.makepyfile("import pytest\n\n" + "\n\n".join(examples))
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
