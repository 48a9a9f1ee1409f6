"""One declaration makes an endpoint: its rules, its action, its input and its description."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from flask import Flask

from flask_communication.configs.tokens import ACTIONS
from flask_communication.web.endpoints import ENDPOINTS, Endpoint
from tests.support.endpoints import PUBLIC, ours

MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp, upgraded_sqlite_url: str) -> Flask:
    return make_app(upgraded_sqlite_url)


def test_every_endpoint_has_an_action_or_is_public_on_purpose(app: Flask) -> None:
    assert ours(app)
    for rule in ours(app):
        action = getattr(app.view_functions[rule.endpoint], "action", None)
        assert action in ACTIONS or rule.endpoint in PUBLIC, rule


def test_every_declaration_is_a_rule_with_and_without_the_slash(app: Flask) -> None:
    rules = {(rule.endpoint, rule.rule.removeprefix("/communication")) for rule in ours(app)}
    for one in ENDPOINTS:
        assert {(f"communication.{one.name}", path) for path in (one.path, f"{one.path}/")} <= rules
    assert Counter(one.name for one in ENDPOINTS).most_common(1)[0][1] == 1


def test_an_endpoint_of_an_action_that_does_not_exist_cannot_be_declared() -> None:
    before = list(ENDPOINTS)
    with pytest.raises(ValueError, match=r"'message\.sned' is no action"):
        Endpoint("POST", "/x", "message.sned")(lambda: "")
    assert before == ENDPOINTS
