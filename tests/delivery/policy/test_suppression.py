"""Who said STOP, or is on the list, is not written to: by exactly those it is on the list for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

from flask_communication import SMS, signals
from flask_communication.configs import store
from flask_communication.configs.state import state_of
from flask_communication.errors import (
    ConfigNotFound,
    InvalidMessage,
    InvalidQuery,
    SuppressionNotFound,
)
from flask_communication.providers.base import Accepted, NotSent, OutcomeUnknown, Refused, Report
from flask_communication.providers.blueprint import provider_blueprint
from flask_communication.providers.simulator import Simulator
from flask_communication.sms import incoming
from flask_communication.storage.models import Message
from tests.support.apps import TO, MakeApp, install, make_due, statements_of, work
from tests.support.providers import Bulky, Scripted

OTHER = "+919999922222"
OURS = "+15550101234"


def opted_out(_sms: Any) -> Accepted:
    raise Refused("21610: unsubscribed recipient", code="21610", opted_out=True)


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, provider: Scripted) -> Flask:
    app = make_app(upgraded_url)
    install(app, provider, key="shop")
    install(app, provider, key="bank")
    return app


def sent(
    app: Flask, destination: str = TO, key: str | None = None, sender: str | None = None
) -> str:
    """Send one SMS and return how it ended."""
    with app.app_context():
        uuid = SMS.send_msg(destination, "Hello", key, sender=sender)
        work(app)
        return SMS.get(uuid).status


def scopes(app: Flask, destination: str = TO) -> set[str]:
    with app.app_context():
        return {one.scope for one in SMS.suppressed(destination).items}


def test_who_is_suppressed_is_rejected_without_a_call_and_the_reason_is_told(
    app: Flask, provider: Scripted
) -> None:
    told: list[str] = []

    def hear(_sender: Flask, *, message_uuid: str, status: str, **_more: Any) -> None:
        told.append(f"{message_uuid} {status}")

    with app.app_context(), signals.message_failed.connected_to(hear):
        SMS.suppress("+91 99999 11111")
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        message = SMS.get(uuid)
    assert message.status == "rejected"
    assert message.error == (
        "the recipient is suppressed for every sender (manual); unsuppress it first, if you may"
    )
    assert message.attempts == []
    assert told == [f"{uuid} rejected"]
    assert provider.calls == []
    assert sent(app, OTHER) == "sent"


def test_a_sender_is_suppressed_for_itself_only_however_it_is_written(app: Flask) -> None:
    with app.app_context():
        SMS.suppress(TO, "+1 (555) 010-1234")
        SMS.suppress(TO, "Shop")
    assert scopes(app) == {"sender:+15550101234", "sender:shop"}
    assert sent(app, sender=OURS) == "rejected"
    assert sent(app, sender="SHOP") == "rejected"
    assert sent(app, sender="BANK") == "sent"
    assert sent(app) == "sent"


def test_a_configuration_stands_only_for_messages_without_a_sender(app: Flask) -> None:
    with app.app_context():
        SMS.suppress(TO, key="shop")
    assert scopes(app) == {"config:1"}
    assert sent(app, key="shop") == "rejected"
    assert sent(app, key="shop", sender="BANK") == "sent"
    assert sent(app, key="bank") == "sent"


def test_two_brands_that_share_a_configuration_cannot_silence_each_other(
    app: Flask, provider: Scripted
) -> None:
    provider.answer = opted_out
    assert sent(app, key="shop", sender="BRAND-A") == "rejected"
    provider.answer = None
    assert scopes(app) == {"sender:brand-a"}
    with app.app_context():
        SMS.receive(TO, "+15550105555", "STOP", key="shop")
    assert sent(app, key="shop", sender="BRAND-A") == "rejected"
    assert sent(app, key="shop", sender="BRAND-B") == "sent"
    assert sent(app, key="bank", sender="BRAND-A") == "rejected"
    assert sent(app, key="bank") == "sent"


def test_what_a_provider_says_of_a_recipient_is_learnt(app: Flask, provider: Scripted) -> None:
    provider.answer = opted_out
    assert sent(app) == "rejected"
    provider.answer = None
    with app.app_context():
        (one,) = SMS.suppressed(TO).items
    assert (one.scope, one.reason, one.detail) == (
        "config:1",
        "opted_out",
        "21610: unsubscribed recipient",
    )
    assert sent(app) == "rejected"
    assert len(provider.calls) == 1


def test_an_opt_out_says_nothing_against_the_configuration(app: Flask, provider: Scripted) -> None:
    def forbid(_sms: Any) -> Accepted:
        raise Refused("forbidden by the recipient", http_status=403, opted_out=True)

    provider.answer = forbid
    assert sent(app) == "rejected"
    provider.answer = None
    assert sent(app, OTHER) == "sent"


def test_a_refusal_for_another_reason_suppresses_nobody(app: Flask, provider: Scripted) -> None:
    def refuse(_sms: Any) -> Accepted:
        raise Refused("no such number")

    provider.answer = refuse
    assert sent(app) == "rejected"
    assert scopes(app) == set()


def test_a_batch_learns_of_each_recipient_and_takes_one_statement(
    make_app: MakeApp, upgraded_url: str
) -> None:
    class Picky(Bulky):
        def send_sms_bulk(self, batch: Any, config: Any) -> Any:
            return [Refused("STOP", opted_out=True) for sms in batch]

    app = make_app(upgraded_url)
    install(app, Picky())
    with app.app_context():
        SMS.send_bulk([{"destination": f"+9199{one:08}", "msg": "Hello"} for one in range(100)] * 2)
        with statements_of(app) as said:
            work(app)
        assert len(SMS.suppressed(limit=500).items) == 100
    writes = sum("INTO communication_suppression" in one for one in said)
    settles = sum("SET status = r.status" in one and "sent_at = CASE" in one for one in said)
    assert 1 <= writes <= settles
    looks = sum("JOIN communication_suppression" in one for one in said)
    claims = sum("fence = fence + 1" in one for one in said)
    assert looks <= claims


def test_where_another_is_rung_in_their_place_nothing_is_learnt(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app = make_app(upgraded_url, COMMUNICATION_REDIRECT_TO="+15550100000")
    install(app, Scripted(opted_out))
    assert sent(app) == "rejected"
    assert scopes(app) == set()


def test_a_report_can_say_it_too(app: Flask, provider: Scripted) -> None:
    def reports(refs: Any, _config: Any) -> list[Report]:
        return [Report(ref, "undelivered", "the handset said STOP", opted_out=True) for ref in refs]

    provider.sms_reports = reports  # type: ignore[method-assign,assignment]
    with app.app_context():
        for sender in (None, "BANK"):
            SMS.send_msg(TO, "Hello", sender=sender)
        work(app)
        SMS.sync_delivery_report()
        told = {(one.scope, one.reason, one.detail) for one in SMS.suppressed(TO).items}
    assert told == {
        (scope, "opted_out", "the handset said STOP") for scope in ("config:1", "sender:bank")
    }


def test_the_simulator_rehearses_it_over_the_http_contract(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app = make_app(upgraded_url)
    app.register_blueprint(provider_blueprint(Simulator(), name="elsewhere"))
    with app.app_context():
        store.create(
            state_of(app),
            {"type": "sms", "provider": "", "provider_pkg_name": "elsewhere", "config": {}},
        )
    assert sent(app, "+15550100009") == "rejected"
    assert scopes(app, "+15550100009") == {"config:1"}
    assert sent(app, "+15550100003") == "rejected"
    assert scopes(app, "+15550100003") == set()


def test_who_may_have_been_reached_already_is_not_called_rejected(
    app: Flask, provider: Scripted
) -> None:
    def doubt(_sms: Any) -> Accepted:
        raise OutcomeUnknown("read timeout")

    provider.idempotency_window = 3600.0
    provider.answer = doubt
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        SMS.suppress(TO)
        make_due(app)
        work(app)
        message = SMS.get(uuid)
    assert message.status == "unknown"
    assert (message.error or "").startswith(
        "an earlier try may have arrived, and now the recipient is"
    )
    assert len(provider.calls) == 1


def test_a_persons_retry_and_release_do_not_reach_them_either(
    make_app: MakeApp, upgraded_url: str
) -> None:
    provider = Scripted()
    app = make_app(upgraded_url, COMMUNICATION_ALLOWED_COUNTRIES=["+1"])
    install(app, provider)
    with app.app_context():
        uuid = SMS.send_msg(TO, "Hello")
        work(app)
        SMS.suppress(TO)
        SMS.release(uuid)
        work(app)
        assert SMS.get(uuid).status == "rejected"
        SMS.retry_send(uuid, force=True)
        work(app)
        assert SMS.get(uuid).status == "rejected"
        assert provider.calls == []
        SMS.unsuppress(TO)
        SMS.retry_send(uuid)
        work(app)
        assert SMS.get(uuid).status == "sent"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("STOP", "stop"),
        (" stop! ", "stop"),
        ("“Stop.”", "stop"),
        ("S.T.O.P", "stop"),
        ("stop all", "stop"),
        ("Unsubscribe", "stop"),
        ("CANCEL", "stop"),
        ("end", "stop"),
        ("Quit\n", "stop"),
        ("start", "start"),
        ("Yes!!", "start"),
        ("UNSTOP", "start"),
        ("please stop", None),
        ("stop it", None),
        ("yes please", None),
        ("", None),
        ("?!", None),
        ("STOP" + " " * 200 + "the presses", None),
    ],
)
def test_only_a_message_that_is_nothing_but_the_word_is_obeyed(body: str, word: str | None) -> None:
    assert incoming.word(body) == word


def test_stop_silences_the_number_it_was_sent_to_and_start_lifts_it(app: Flask) -> None:
    with app.app_context():
        SMS.receive(TO, OURS, "Stop.")
    assert scopes(app) == {f"sender:{OURS}", "config:1"}
    assert sent(app, sender=OURS) == "rejected"
    assert sent(app) == "rejected"
    assert sent(app, sender="BANK") == "sent"
    assert sent(app, OTHER, sender=OURS) == "sent"
    with app.app_context():
        SMS.receive(TO, OURS, "START")
    assert scopes(app) == set()
    assert sent(app, sender=OURS) == "sent"


def test_a_stop_to_a_fallback_is_meant_for_whom_it_stood_in(app: Flask, provider: Scripted) -> None:
    def only_the_fallback(sms: Any) -> Accepted:
        if len(provider.calls) == 1:
            raise NotSent("connection refused")
        return provider.ring(sms)

    with app.app_context():
        store.change(state_of(app), 1, {"fallback": ["bank"]})
        provider.answer = only_the_fallback
        uuid = SMS.send_msg(TO, "Hello", "shop")
        work(app)
        make_due(app)
        work(app)
        assert [one.config_id for one in SMS.get(uuid).attempts] == [1, 2]
        SMS.receive(TO, OURS, "STOP", key="bank")
    assert scopes(app) == {f"sender:{OURS}", "config:1", "config:2"}
    provider.answer = None
    assert sent(app, key="shop") == "rejected"
    with app.app_context():
        SMS.receive(TO, OURS, "START", key="bank")
    assert sent(app, key="shop") == "sent"


def test_start_does_not_undo_what_a_person_decided(app: Flask) -> None:
    with app.app_context():
        SMS.suppress(TO)
        SMS.receive(TO, OURS, "STOP")
        SMS.suppress(TO, OURS, "complaint", detail="wrote to the regulator")
        SMS.receive(TO, OURS, "STOP")
        SMS.receive(TO, OURS, "YES")
    with app.app_context():
        left = {(one.scope, one.reason) for one in SMS.suppressed(TO).items}
    assert left == {("", "manual"), (f"sender:{OURS}", "complaint")}


def test_what_comes_in_is_stored_and_announced_once(app: Flask) -> None:
    told: list[tuple[str, str]] = []

    def hear(_sender: Flask, *, message_uuid: str, status: str, **_more: Any) -> None:
        told.append((message_uuid, status))

    with app.app_context(), signals.message_received.connected_to(hear):
        first = SMS.receive(TO, OURS, "Hello?", key="bank", provider_ref="in-1")
        assert SMS.receive(TO, OURS, "Hello?", key="bank", provider_ref="in-1") == first
        # Another provider may number its messages alike.
        second = SMS.receive(TO, OURS, "Hello?", key="shop", provider_ref="in-1")
        third = SMS.receive(TO, OURS, "Hello?")
        message = SMS.get(first)
        assert len({first, second, third}) == 3
        assert {one.uuid for one in SMS.messages(destination=OURS).items} == {first, second, third}
    assert told == [(one, "received") for one in (first, second, third)]
    assert (message.direction, message.status, message.due_at) == ("in", "received", None)
    assert (message.sender, message.destination, message.body) == (TO, OURS, "Hello?")
    assert (message.config_id, message.provider_ref) == (2, "in-1")
    work(app)
    with app.app_context():
        assert SMS.get(first).status == "received"


def test_a_stop_told_twice_after_a_start_is_old_news(app: Flask) -> None:
    with app.app_context():
        SMS.receive(TO, OURS, "STOP", provider_ref="1")
        SMS.receive(TO, OURS, "START", provider_ref="2")
        uuid = SMS.receive(TO, OURS, "STOP", provider_ref="1")
        (told,) = SMS.get(uuid).events
    assert scopes(app) == set()
    assert (told.kind, told.detail) == (
        "stop",
        f"{TO} is suppressed for sender:{OURS} and config:1",
    )


def test_the_same_message_from_many_threads_is_one(app: Flask) -> None:
    together = threading.Barrier(8)
    uuids: set[str] = set()

    def come_in() -> None:
        with app.app_context():
            together.wait()
            uuids.add(SMS.receive(TO, OURS, "STOP", provider_ref="in-1"))

    threads = [threading.Thread(target=come_in) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with state_of(app).database.session() as session:
        assert session.scalar(select(func.count(Message.id))) == 1
    assert len(uuids) == 1


@pytest.mark.parametrize(
    ("region", "source", "destination"),
    [
        (None, "919999911111", TO),
        (None, "+91 99999-11111", TO),
        ("IN", "9999911111", TO),
        ("IN", "919999911111", TO),
        ("IN", "447400123456", "+447400123456"),
        (None, "57575", "57575"),
        (None, "VM-BANK", "VM-BANK"),
    ],
)
def test_a_stop_counts_however_the_provider_writes_the_number(
    make_app: MakeApp, upgraded_sqlite_url: str, region: str | None, source: str, destination: str
) -> None:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_DEFAULT_REGION=region)
    with app.app_context():
        # Without any configuration, too: a STOP must not get lost.
        SMS.receive(source, OURS, "STOP")
    assert scopes(app, destination) == {f"sender:{OURS}"}


def test_a_disabled_configuration_still_hears_stop(app: Flask) -> None:
    with app.app_context():
        store.change(state_of(app), 2, {"enabled": False})
        SMS.receive(TO, OURS, "STOP", key="bank")
    assert scopes(app) == {f"sender:{OURS}", "config:2"}


def test_what_cannot_be_meant_is_refused_by_name(app: Flask) -> None:
    wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (InvalidMessage, "destination", lambda: SMS.suppress("12")),
        (InvalidMessage, "sender", lambda: SMS.suppress(TO, "a\nb")),
        (InvalidMessage, "detail", lambda: SMS.suppress(TO, detail="\x00")),
        (InvalidQuery, "reason", lambda: SMS.suppress(TO, reason="because")),
        (InvalidQuery, "key", lambda: SMS.suppress(TO, "SHOP", key="shop")),
        (ConfigNotFound, "nobody", lambda: SMS.suppress(TO, key="nobody")),
        (ConfigNotFound, "nobody", lambda: SMS.receive(TO, OURS, "Hello", key="nobody")),
        (InvalidMessage, "source", lambda: SMS.receive("", OURS, "Hello")),
        (InvalidMessage, "msg", lambda: SMS.receive(TO, OURS, "\x00")),
        (InvalidMessage, "provider_ref", lambda: SMS.receive(TO, OURS, "Hello", provider_ref="")),
        (InvalidQuery, "limit", lambda: SMS.suppressed(limit=0)),
        (InvalidQuery, "after", lambda: SMS.suppressed(after="x")),
        (InvalidQuery, "after", lambda: SMS.suppressed(after="999999999999999999")),
        (SuppressionNotFound, "for every sender$", lambda: SMS.unsuppress(TO)),
    ]
    with app.app_context():
        for kind, words, call in wrong:
            with pytest.raises(kind, match=words):
                call()
        SMS.suppress(TO, "SHOP")
        with pytest.raises(SuppressionNotFound, match="every sender, but for sender:shop"):
            SMS.unsuppress(TO)


def test_the_list_comes_in_pages(app: Flask) -> None:
    with app.app_context():
        for one in range(5):
            SMS.suppress(f"+91999991111{one}")
        first = SMS.suppressed(limit=2)
        second = SMS.suppressed(limit=2, after=first.next)
        last = SMS.suppressed(limit=2, after=second.next)
    numbers = [one.destination[-1] for page in (first, second, last) for one in page.items]
    assert numbers == ["4", "3", "2", "1", "0"]
    assert last.next is None


def run(app: Flask, *words: str, expect: int = 0) -> str:
    result = app.test_cli_runner().invoke(args=["communication", "suppression", *words])
    assert result.exit_code == expect, result.output
    return result.output


def test_the_command_line_lists_adds_and_removes(app: Flask) -> None:
    run(app, "add", TO, "--sender", "SHOP", "--detail", "asked by letter")
    run(app, "add", OTHER, "--key", "bank", "--reason", "bounce")
    listed = run(app, "list")
    assert "sender:shop" in listed
    assert "asked by letter" in listed
    assert "config:2" in listed
    assert TO not in run(app, "list", "--to", OTHER)
    assert "but for sender:shop" in run(app, "remove", TO, expect=1)
    run(app, "remove", TO, "--sender", "shop")
    assert TO not in run(app, "list")
    assert "more: --after" in (run(app, "add", TO) and run(app, "list", "--limit", "1"))


def test_rest_lists_adds_and_removes(app: Flask) -> None:
    client: FlaskClient = app.test_client()
    url = "/communication/suppressions/"
    body = {"destination": TO, "sender": "SHOP", "reason": "complaint", "detail": "by letter"}
    assert client.post(url, json=body).json == {"success": True, "msg": "Successfully suppressed"}
    assert client.post(url, json={"destination": TO, "key": 2}).status_code == 200
    listed = client.get(url, query_string={"destination": TO, "channel": "sms", "limit": 1}).json
    assert listed is not None
    assert [one["scope"] for one in listed["data"]] == ["config:2"]
    rest = client.get(url, query_string={"after": listed["next"]}).json
    assert rest is not None
    assert rest["next"] is None
    (one,) = rest["data"]
    assert one.pop("created_at")
    assert one == {
        "channel": "sms",
        "destination": TO,
        "scope": "sender:shop",
        "reason": "complaint",
        "detail": "by letter",
    }
    assert client.delete(url, json={"destination": TO, "sender": "shop"}).status_code == 200
    assert client.delete(url, json={"destination": TO, "sender": "shop"}).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"destination": 3},
        {"destination": "x"},
        {"destination": TO, "sender": ""},
        {"destination": TO, "reason": "why"},
        {"destination": TO, "scope": "sender:shop"},
        {"destination": TO, "sender": "A", "key": "shop"},
        {"destination": TO, "detail": "\ud800"},
    ],
)
def test_rest_refuses_what_cannot_be_meant(app: Flask, body: dict[str, Any]) -> None:
    answer = app.test_client().post("/communication/suppressions", json=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert scopes(app) == set()
