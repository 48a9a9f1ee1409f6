"""Every mail of a mailbox is read once, when the mailbox is due; no mail stops the others."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_communication import Email
from flask_communication.configs.state import state_of
from flask_communication.email import inbox, incoming
from flask_communication.email.inbox import InboxResult
from flask_communication.errors import (
    ConfigNotFound,
    InvalidQuery,
    NotSent,
    ProviderError,
    Refused,
)
from flask_communication.formats.mail import ParsedMail
from flask_communication.providers.base import (
    Accepted,
    InboundEmail,
    Inbox,
    OutboundEmail,
)
from tests.support.apps import MakeApp, install, work
from tests.support.hostile_mail import corpus
from tests.support.postbox import ANN, Postbox, mail, received


def test_a_second_sync_brings_only_what_is_new(app: Flask, postbox: Postbox) -> None:
    with app.app_context():
        postbox.mails += [mail("one"), mail("two")]
        assert Email.sync_inbox("main") == (2, 2, 0)
        assert Email.sync_inbox("main") == (0, 0, 0)
        postbox.mails.append(mail("three"))
        assert Email.sync_inbox("main") == (1, 1, 0)
        assert [one.body.split(",")[0] for one in received()] == ["one", "two", "three"]


def test_a_mailbox_that_numbers_its_mails_anew_brings_none_twice(
    app: Flask, postbox: Postbox
) -> None:
    with app.app_context():
        postbox.mails += [mail("one"), mail("two")]
        Email.sync_inbox()
        with state_of(app).database.write() as connection:
            connection.execute(text("UPDATE communication_mailbox SET cursor = '{}'"))
        postbox.mails.append(mail("three"))
        assert Email.sync_inbox() == (3, 1, 0)
        assert len(received()) == 3


def mailbox(app: Flask) -> Any:
    with state_of(app).database.read() as connection:
        return connection.execute(text("SELECT * FROM communication_mailbox")).one()


def test_a_worker_reads_what_is_due_and_then_waits(app: Flask, postbox: Postbox) -> None:
    postbox.mails.append(mail("one"))
    with app.app_context():
        work(app)
        assert len(received()) == 1
        assert (mailbox(app).reading, mailbox(app).error) == (False, None)
        assert mailbox(app).synced_at is not None
        assert not inbox.is_due(state_of(app))
        work(app)
    assert postbox.visits == 1


def test_no_mailbox_is_read_by_itself_where_the_setting_says_so(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app, postbox = (
        make_app(upgraded_sqlite_url, COMMUNICATION_INBOX_EVERY=None),
        Postbox(mail("one")),
    )
    install(app, postbox, type="email")
    work(app)
    assert postbox.visits == 0
    with app.app_context():
        assert Email.sync_inbox() == (1, 1, 0)


def test_trouble_is_raised_for_a_named_mailbox_and_kept_for_people(
    app: Flask, postbox: Postbox
) -> None:
    postbox.trouble = Refused("wrong password")
    with app.app_context():
        with pytest.raises(ProviderError, match="wrong password"):
            Email.sync_inbox("main")
        assert mailbox(app).error == "wrong password"
        assert Email.sync_inbox() == (0, 0, 1)
        postbox.trouble = None
        assert Email.sync_inbox() == (0, 0, 0)
        assert mailbox(app).error is None


def test_trouble_in_a_worker_is_logged_and_stops_nothing(
    app: Flask, postbox: Postbox, caplog: pytest.LogCaptureFixture
) -> None:
    postbox.trouble = RuntimeError("a bug of the provider")
    with app.app_context():
        uuid = Email(to=ANN, subject="Hi", body="Hi").send()
        work(app)
        assert Email.get(uuid).status == "sent"
    assert "cannot read the inbox of configuration" in caplog.text
    assert "RuntimeError" in mailbox(app).error


def test_what_is_to_be_sent_does_not_wait_for_a_slow_mailbox(app: Flask, postbox: Postbox) -> None:
    arrived, seen = threading.Event(), []
    postbox.meanwhile = lambda: seen.append(arrived.wait(20))
    with app.app_context():
        Email(to=ANN, subject="Hi", body="Hi").send()

        def send(email: OutboundEmail, _config: Mapping[str, Any]) -> Accepted:
            arrived.set()
            return Accepted(email.message_id)

        postbox.send_email = send  # type: ignore[method-assign,assignment]
        work(app)
    assert seen == [True]


def test_who_was_overtaken_stores_nothing_more(app: Flask, postbox: Postbox) -> None:
    postbox.mails += [mail(f"mail {n}") for n in range(6)]
    postbox.page = 2
    with app.app_context():
        done: list[Any] = []

        def overtake() -> None:
            if postbox.visits == 2:
                done.append(Email.sync_inbox("main"))

        postbox.meanwhile = overtake
        first = Email.sync_inbox("main")
        assert done == [(4, 4, 0)]
        assert first == (2, 2, 1)
        assert len(received()) == 6


def test_a_provider_that_promises_more_and_brings_nothing_is_left(
    app: Flask, postbox: Postbox
) -> None:
    def nothing(_cursor: Mapping[str, Any], _limit: int, _config: Mapping[str, Any]) -> Inbox:
        postbox.visits += 1
        return Inbox([], {"read": 1}, more=True)

    postbox.fetch_inbox = nothing  # type: ignore[method-assign,assignment]
    with app.app_context():
        assert Email.sync_inbox() == (0, 0, 0)
    assert postbox.visits == 2


def test_a_configuration_without_an_inbox_says_so(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app = make_app(upgraded_sqlite_url)
    provider = Postbox()
    provider.features = frozenset()
    install(app, provider, type="email", key="plain")
    with app.app_context():
        with pytest.raises(InvalidQuery, match="has no inbox"):
            Email.sync_inbox("plain")
        with pytest.raises(ConfigNotFound):
            Email.sync_inbox("nobody")
        assert Email.sync_inbox() == (0, 0, 0)
        work(app)
        assert not inbox.is_due(state_of(app))
    assert provider.visits == 0


def test_a_batch_that_cannot_be_stored_is_stored_one_by_one(
    app: Flask, postbox: Postbox, caplog: pytest.LogCaptureFixture
) -> None:
    # A letter that no column takes stands for what our reader may overlook.
    postbox.mails += [mail("one"), mail("two"), mail("three")]
    with app.app_context():
        routes: Sequence[Any] = inbox._routes(state_of(app), "main")
        reader = inbox.claim(state_of(app), routes[0])
        assert reader is not None
        found = postbox.fetch_inbox({}, 10, {})
        mails = [incoming.parse(1, one) for one in found.mails]
        broken = incoming.IncomingMail(
            mails[1].fetched,
            ParsedMail(message_id=object()),  # type: ignore[arg-type]
            mails[1].fingerprint,
        )
        assert reader._store([mails[0], broken, mails[2]], {"read": 3}) is not None
        problems = [one.mail.problem for one in received()]
    assert problems == [None, "could not be read: TypeError", None]
    assert "cannot be stored as it was read" in caplog.text


def test_errors_of_the_mailbox_never_show_what_is_secret(app: Flask, postbox: Postbox) -> None:
    postbox.trouble = NotSent("mail.example.com:993: refused\r\nsee\x00below")
    with app.app_context():
        Email.sync_inbox()
    assert mailbox(app).error == "mail.example.com:993: refused  see below"


# --- Hostile mails


@pytest.mark.timeout(120)
def test_two_thousand_mixed_mails_with_the_hostile_ones_come_once_each(
    app: Flask, postbox: Postbox
) -> None:
    hostile = [raw for _, raw in corpus() if len(raw) < 2_000_000]
    good = [mail(f"good {n}", Message_ID=f"<{n}@x.example>") for n in range(2000 - len(hostile))]
    postbox.mails = [raw for pair in zip(good, hostile, strict=False) for raw in pair] + good[
        len(hostile) :
    ]
    different = len({raw or str(place) for place, raw in enumerate(postbox.mails)})
    halfway = [True, *[False] * 8, True]

    def die() -> None:
        if halfway and halfway.pop(0) and postbox.visits > 1:
            raise KeyboardInterrupt

    postbox.meanwhile = die
    with app.app_context():
        with pytest.raises(KeyboardInterrupt):
            Email.sync_inbox()
        before = count_of(app)
        assert 0 < before < different
        result = Email.sync_inbox()
        assert result.failed == 0
        assert count_of(app) == different
        assert before + result.new == different
        assert Email.sync_inbox() == (0, 0, 0)
        kept = problems_of(app)
        assert {
            name: count for name, count in Counter(name for name, _ in kept).items() if count > 1
        } == {}
        expected = {
            (hashlib.sha256(raw).hexdigest() if raw else None): raw for raw in postbox.mails
        }
        assert {name for name, _ in kept} == set(expected)
        problems = {name: problem for name, problem in kept if problem}
        assert problems == {
            name: found
            for name, raw in expected.items()
            if (found := incoming.parse(1, InboundEmail("1", raw)).problem)
        }
        assert len(problems) > 100


def problems_of(app: Flask) -> list[tuple[str | None, str | None]]:
    """Return the hash of the raw bytes, which are stored, and the problem of each incoming mail."""
    query = (
        "SELECT e.raw_sha256, e.problem, f.content FROM communication_mail AS e"
        " JOIN communication_message AS m ON m.id = e.message_id"
        " LEFT JOIN communication_file AS f ON f.sha256 = e.raw_sha256 WHERE m.direction = 'in'"
    )
    with state_of(app).database.read() as connection:
        rows = connection.execute(text(query)).all()
    assert all(
        row.raw_sha256 in (None, hashlib.sha256(row.content or b"").hexdigest()) for row in rows
    )
    return [(row.raw_sha256, row.problem) for row in rows]


def count_of(app: Flask) -> int:
    with state_of(app).database.read() as connection:
        query = "SELECT count(*) FROM communication_message WHERE direction = 'in'"
        return int(connection.execute(text(query)).scalar() or 0)


def test_the_result_is_a_triple_and_has_the_names_of_a_sync(app: Flask, postbox: Postbox) -> None:
    postbox.mails += [mail("one"), mail("one"), mail("two")]
    with app.app_context():
        result = Email.sync_inbox()
    fetched, new, failed = result
    assert isinstance(result, InboxResult)
    assert result == (fetched, new, failed) == (3, 2, 0)
    assert (result.fetched, result.new, result.failed) == (3, 2, 0)
    assert (result.asked, result.updated, result.open) == (3, 2, 0)
