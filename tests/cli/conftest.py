"""An application, for the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask


@pytest.fixture
def app(make_app: Callable[..., Flask], upgraded_url: str) -> Flask:
    return make_app(upgraded_url)
