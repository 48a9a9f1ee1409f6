"""Taking messages in: the caller's transaction, or one of our own."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from flask_communication import SMS, Email
from flask_communication.configs.state import state_of
from flask_communication.errors import ConfigNotFound, InvalidMessage, NotUpgraded, SessionConflict
from flask_communication.providers.simulator import Simulator
from tests.support.apps import TO, MakeApp, install, work
from tests.support.providers import Scripted


class Host:
    """A host application with one table of its own."""

    def __init__(self, make_app: MakeApp, url: str) -> None:
        self.db = SQLAlchemy()
        self.provider = Scripted()

        class Order(self.db.Model):  # type: ignore[name-defined,misc]
            id = self.db.Column(self.db.Integer, primary_key=True)

        self.Order = Order
        self.app = make_app(url, db=self.db)
        self.db.init_app(self.app)
        self.rings = 0
        with self.app.app_context():
            self.db.create_all()
        install(self.app, self.provider)
        state_of(self.app).ring = self.ring

    def ring(self) -> None:
        self.rings += 1


@pytest.fixture
def host(make_app: MakeApp, upgraded_url: str) -> Host:
    return Host(make_app, upgraded_url)


def sent(host: Host) -> list[str]:
    work(host.app)
    return [sms.msg for sms in host.provider.calls]


def test_a_rolled_back_order_sends_nothing(host: Host) -> None:
    with host.app.app_context():
        host.db.session.add(host.Order())
        SMS.send_msg(TO, "Thank you", session=host.db.session)
        assert host.rings == 0
        host.db.session.rollback()
        assert SMS.messages().items == []
        host.db.session.commit()
    assert host.rings == 0
    assert sent(host) == []


def test_a_committed_order_sends_once_and_rings_after_the_commit(host: Host) -> None:
    with host.app.app_context():
        host.db.session.add(host.Order())
        uuid = SMS.send_msg(TO, "Thank you", session=host.db.session)
        assert host.rings == 0
        host.db.session.commit()
        assert host.rings == 1
        host.db.session.add(host.Order())
        host.db.session.commit()
        assert host.rings == 1
        assert sent(host) == ["Thank you"]
        assert SMS.get(uuid).status == "sent"


def test_a_rolled_back_savepoint_takes_its_message_along(host: Host) -> None:
    with host.app.app_context():
        host.db.session.add(host.Order())
        host.db.session.flush()
        SMS.send_msg(TO, "first", session=host.db.session)
        savepoint = host.db.session.begin_nested()
        SMS.send_msg(TO, "second", session=host.db.session)
        savepoint.rollback()
        kept = host.db.session.begin_nested()
        SMS.send_msg(TO, "third", session=host.db.session)
        kept.commit()
        assert host.rings == 0
        host.db.session.commit()
        assert host.rings == 1
    assert sent(host) == ["first", "third"]


def test_a_conflict_of_keys_leaves_the_callers_transaction_usable(host: Host) -> None:
    with host.app.app_context():
        SMS.send_msg(TO, "one", idempotency_key="k")
        host.db.session.add(host.Order())
        with pytest.raises(Exception, match="used for another message"):
            SMS.send_bulk(
                [
                    {"destination": TO, "msg": "new"},
                    {"destination": TO, "msg": "other", "idempotency_key": "k"},
                ],
                session=host.db.session,
            )
        host.db.session.commit()
        assert host.db.session.query(host.Order).count() == 1
    assert sent(host) == ["one"]


def test_without_a_session_the_hosts_rows_are_not_committed(host: Host) -> None:
    with host.app.app_context():
        host.db.session.add(host.Order())
        SMS.send_msg(TO, "Hello")
        host.db.session.rollback()
        assert host.db.session.query(host.Order).count() == 0
    assert sent(host) == ["Hello"]


def test_on_sqlite_an_open_write_of_the_host_is_refused_at_once(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    host = Host(make_app, upgraded_sqlite_url)
    with host.app.app_context():
        host.db.session.add(host.Order())
        host.db.session.flush()
        with pytest.raises(SessionConflict, match=r"session=db\.session"):
            SMS.send_msg(TO, "Hello")
        SMS.send_msg(TO, "Hello", session=host.db.session)
        host.db.session.commit()
        SMS.send_msg(TO, "Hello again")
    assert sent(host) == ["Hello", "Hello again"]


def test_on_postgresql_an_open_write_of_the_host_is_no_trouble(
    make_app: MakeApp, upgraded_postgresql_url: str
) -> None:
    host = Host(make_app, upgraded_postgresql_url)
    with host.app.app_context():
        host.db.session.add(host.Order())
        host.db.session.flush()
        SMS.send_msg(TO, "Hello")
        host.db.session.rollback()
    assert sent(host) == ["Hello"]


def test_in_memory_the_hosts_rows_are_never_committed_for_it(make_app: MakeApp) -> None:
    from flask_communication.storage import migrations

    app = make_app("sqlite://")
    migrations.upgrade(state_of(app).database)
    provider = Scripted()
    install(app, provider)
    db = app.extensions["sqlalchemy"]
    with app.app_context():
        SMS.send_msg(TO, "one")
        db.session.execute(text("UPDATE communication_config SET provider = 'x'"))
        with pytest.raises(SessionConflict, match="commit them too"):
            SMS.send_msg(TO, "two")
        SMS.send_msg(TO, "three", session=db.session)
        db.session.commit()
    work(app)
    assert [sms.msg for sms in provider.calls] == ["one", "three"]


def test_in_memory_a_look_does_not_undo_the_hosts_rows(make_app: MakeApp) -> None:
    from flask_communication.storage import migrations

    app = make_app("sqlite://")
    migrations.upgrade(state_of(app).database)
    install(app, Scripted())
    session = app.extensions["sqlalchemy"].session
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello", session=session)
        assert SMS.get(uuid).status == "queued"
        assert len(SMS.messages().items) == 1
        session.commit()
        assert SMS.get(uuid).status == "queued"


def test_a_session_of_another_database_is_refused(host: Host) -> None:
    other = create_engine("sqlite://")
    with host.app.app_context(), Session(other) as session, pytest.raises(SessionConflict):
        SMS.send_msg(TO, "Hello", session=session)
    other.dispose()


def test_missing_tables_are_named(make_app: MakeApp, database_url: str) -> None:
    with (
        make_app(database_url).app_context(),
        pytest.raises(NotUpgraded, match="communication upgrade"),
    ):
        SMS.send_msg(TO, "Hello")


def test_fifty_threads_with_one_key_make_one_message(host: Host) -> None:
    uuids: list[str] = []
    failures: list[Exception] = []

    def send() -> None:
        try:
            with host.app.app_context():
                uuids.append(SMS.send_msg(TO, "Hello", idempotency_key="order-1"))
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=send) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(set(uuids)) == 1
    assert len(uuids) == 50
    assert sent(host) == ["Hello"]


def test_two_applications_do_not_see_each_other(
    make_app: MakeApp, upgraded_sqlite_url: str, upgraded_postgresql_url: str
) -> None:
    from flask_communication import Communication

    one = make_app(upgraded_sqlite_url, COMMUNICATION_URL_PREFIX="/one")
    other = make_app(upgraded_postgresql_url, COMMUNICATION_URL_PREFIX="/other")
    providers: dict[Any, Scripted] = {}
    for app in (one, other):
        providers[app] = Scripted()
        install(app, providers[app])
    with one.app_context():
        uuid = SMS.send_msg(TO, "of one")
    with other.app_context():
        assert SMS.messages().items == []
        SMS.send_msg(TO, "of the other")
    work(one)
    assert [sms.msg for sms in providers[one].calls] == ["of one"]
    assert providers[other].calls == []
    assert one.test_client().get(f"/one/messages/{uuid}").status_code == 200
    assert other.test_client().get(f"/other/messages/{uuid}").status_code == 404
    assert other.test_client().get("/one/health").status_code == 404
    with pytest.raises(RuntimeError, match="already"):
        Communication(one)


def test_one_extension_serves_applications_with_other_prefixes(upgraded_sqlite_url: str) -> None:
    from flask_communication import Communication

    communication, db = Communication(), SQLAlchemy()
    provider = Scripted()
    communication.register_provider(provider)
    apps: list[Flask] = []
    for prefix in ("/a", "/b/c", ""):
        app = Flask(f"app{len(apps)}")
        app.config.update(
            SQLALCHEMY_DATABASE_URI=upgraded_sqlite_url, COMMUNICATION_EMBEDDED_WORKER=False
        )
        db.init_app(app)
        communication.init_app(app, db, url_prefix=prefix)
        apps.append(app)
        assert app.test_client().get(f"{prefix}/health").status_code == 200
        assert state_of(app).registry.find("scripted") is provider
    by_hand = Flask("by_hand")
    by_hand.config.update(
        SQLALCHEMY_DATABASE_URI=upgraded_sqlite_url,
        COMMUNICATION_REGISTER_BLUEPRINT=False,
        COMMUNICATION_EMBEDDED_WORKER=False,
    )
    db.init_app(by_hand)
    communication.init_app(by_hand, db)
    by_hand.register_blueprint(communication.blueprint, url_prefix="/x")
    assert by_hand.test_client().get("/x/health").status_code == 200
    assert by_hand.test_client().get("/communication/health").status_code == 404


def test_each_of_many_goes_by_the_configuration_it_names(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app = make_app(upgraded_url)
    ids: dict[tuple[str, str], int] = {}
    for channel in ("email", "sms"):
        for key in ("one", "two"):
            ids[channel, key] = install(app, Simulator(), type=channel, key=key)
    mail: dict[str, Any] = {"to": "ann@x.example", "body": "Hi", "sender": "a@x.example"}
    sms = {"destination": TO, "msg": "Hi"}
    kinds: list[tuple[str, Any, dict[str, Any]]] = [("email", Email, mail), ("sms", SMS, sms)]
    with app.app_context():
        for channel, api, one in kinds:
            given = [{**one, "key": "two"}, one, {**one, "key": str(ids[channel, "two"])}]
            found = [api.get(uuid).config_id for uuid in api.send_bulk(given, key="one")]
            assert found == [ids[channel, name] for name in ("two", "one", "two")]
            before = len(api.messages().items)
            with pytest.raises(ConfigNotFound, match="nope"):
                api.send_bulk([one, {**one, "key": "nope"}], key="one")
            with pytest.raises(InvalidMessage, match=r"\[1\]\.key"):
                api.send_bulk([one, {**one, "key": ["two"]}], key="one")
            assert len(api.messages().items) == before
        (uuid,) = Email.send_bulk([Email(**mail, key="two")])
        assert Email.get(uuid).config_id == ids["email", "two"]
