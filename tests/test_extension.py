"""What ``init_app`` decides about workers."""

from __future__ import annotations

import logging
import threading

import pytest
from flask import Flask

from flask_communication.configs.state import State
from flask_communication.delivery.worker.worker import Worker
from tests.support.apps import MakeApp


def workers(app: Flask) -> list[str]:
    # Those of other tests may still be about to end.
    return [
        one.name
        for one in threading.enumerate()
        if one.name == "communication-worker" and _state_of(one).app is app
    ]


def _state_of(thread: threading.Thread) -> State:
    worker: Worker = thread._target.__self__  # type: ignore[attr-defined]
    return worker._state


def test_an_in_memory_database_gets_one_warning_and_no_worker_thread(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app("sqlite://", COMMUNICATION_EMBEDDED_WORKER=True)
    for _ in range(2):
        app.test_client().get("/communication/health")
    assert caplog.text.count("an in-memory SQLite database has one connection") == 1
    assert workers(app) == []


def test_the_worker_thread_starts_with_the_first_request(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_EMBEDDED_WORKER=True)
    assert workers(app) == []
    for _ in range(2):
        app.test_client().get("/communication/health")
    assert workers(app) == ["communication-worker"]


def test_an_application_without_authorize_is_told_how_to_let_people_in(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        make_app("sqlite://", authorize=None)
    assert "pass Communication(authorize=…) to let people in" in caplog.text
