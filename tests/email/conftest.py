"""An application whose mailbox is a list."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.support.apps import MakeApp, install
from tests.support.postbox import Postbox


@pytest.fixture
def postbox() -> Postbox:
    return Postbox()


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, postbox: Postbox) -> Flask:
    app = make_app(upgraded_url, COMMUNICATION_DEFAULT_SENDER="Shop <shop@example.com>")
    install(app, postbox, type="email", key="main", is_default=True)
    return app
