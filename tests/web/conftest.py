"""An application and its client, for the tests of the web interface."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient


@pytest.fixture
def app(make_app: Callable[..., Flask], upgraded_url: str) -> Flask:
    return make_app(upgraded_url)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
