"""An email's fields are checked before it is accepted, and the wrong one is named."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from flask_communication import Email
from flask_communication.configs.state import state_of
from flask_communication.delivery.accept import Draft
from flask_communication.email import compose, records
from flask_communication.errors import InvalidMessage, MessageNotFound
from flask_communication.formats.text import LONGEST_TEXT
from tests.support.apps import MakeApp

FIELDS = dict.fromkeys(
    "to cc bcc reply_to sender subject body html headers key in_reply_to unsubscribe".split()
) | {"to": "ann@example.com", "subject": "Hi", "files": ()}


@pytest.fixture
def app(make_app: MakeApp, upgraded_sqlite_url: str) -> Flask:
    return make_app(upgraded_sqlite_url, COMMUNICATION_DEFAULT_SENDER="shop@example.com")


def draft(app: Flask, **fields: Any) -> Draft:
    with app.app_context():
        return compose.draft(state_of(app), {**FIELDS, **fields}, {"idempotency_key": "k"})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"to": None}, "to: has no recipient"),
        ({"subject": "x" * 999}, "subject: must be one line of at most 998"),
        ({"subject": "a\nb"}, "subject: must be one line"),
        ({"body": "x" * (LONGEST_TEXT + 1)}, "body: must be a text of at most 1048576"),
        ({"html": "a\0"}, "html: has a NUL"),
        ({"html": b"<p>"}, "html: must be a text"),
        ({"subject": " "}, "body: is empty, and so is the subject"),
        ({"unsubscribe": "http://x.example/"}, "unsubscribe: must be an https address"),
        ({"unsubscribe": "https://x.example/>"}, "unsubscribe: must be an https address"),
        ({"in_reply_to": "17"}, "in_reply_to: must be the uuid of a message, or <id@host>"),
        ({"in_reply_to": "<a b@c>"}, "in_reply_to: must be the uuid"),
        ({"in_reply_to": "<ü@x.example>"}, "in_reply_to: must be the uuid"),
        ({"sender": "shop"}, "sender: must be an email address"),
        ({"key": 1.5}, "key: must be the key or the id"),
    ],
)
def test_a_field_that_is_wrong_is_named(app: Flask, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        draft(app, **fields)


def test_an_answer_to_nothing_is_refused(app: Flask) -> None:
    with pytest.raises(MessageNotFound):
        draft(app, in_reply_to="00000000-0000-4000-8000-000000000000")


def test_an_answer_to_a_message_id_of_elsewhere_refers_to_it(app: Flask) -> None:
    mail = draft(app, in_reply_to="<no-at-sign>").content
    assert isinstance(mail, records.Draft)
    assert (mail.columns["in_reply_to"], mail.columns["refs"]) == ("<no-at-sign>", ["<no-at-sign>"])


@pytest.mark.parametrize(
    "changed",
    [
        {"subject": "Ho"},
        {"body": "x"},
        {"html": "<p>"},
        {"sender": "b@example.com"},
        {"headers": {"X-A": "1"}},
        {"cc": "bob@example.com"},
        {"in_reply_to": "<a@b>"},
    ],
)
def test_a_repeated_key_is_compared_by_all_that_is_sent(
    app: Flask, changed: dict[str, Any]
) -> None:
    same, again, other = draft(app), draft(app), draft(app, **changed)
    assert same.body_hash is not None
    assert same.body_hash == again.body_hash != other.body_hash


def test_the_default_sender_writes_where_none_is_given(app: Flask) -> None:
    assert draft(app).sender == "shop@example.com"
    assert draft(app, sender="Ann <a@b.example>").sender == "Ann <a@b.example>"
    assert Email("ann@example.com").sender is None
