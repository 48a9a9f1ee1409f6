"""``health`` and ``metrics``: who attends, what is late, what is paused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from rigs import Scripted, install, make_due, work
from sqlalchemy import text

from flask_communication import SMS, heartbeat
from flask_communication.providers.base import Refused
from flask_communication.state import state_of
from flask_communication.worker import Worker

TO = "+919999911111"
MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str) -> Flask:
    app = make_app(upgraded_url)
    install(app, Scripted())
    return app


def health(app: Flask) -> tuple[int, dict[str, dict[str, object]]]:
    answer = app.test_client().get("/communication/health")
    assert answer.json is not None
    return answer.status_code, answer.json["data"]


def values(app: Flask) -> dict[tuple[str, ...], float]:
    answer = app.test_client().get("/communication/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_overdue_work_that_nobody_attends_is_unwell(app: Flask) -> None:
    with app.app_context():
        SMS.send_msg(TO, "Hello")
    assert health(app)[0] == 200
    make_due(app)
    status, told = health(app)
    assert status == 503
    assert "flask communication worker" in str(told["workers"]["problem"])
    heartbeat.Heart(state_of(app)).beat()
    status, told = health(app)
    assert status == 200
    assert told["workers"]["alive"] == 1


def test_a_worker_is_seen_while_it_attends(app: Flask) -> None:
    worker = Worker(state_of(app))
    attending = threading.Thread(target=worker.run)
    attending.start()
    with app.app_context():
        while not health(app)[1]["workers"]["alive"]:
            assert attending.is_alive()
    worker.stop()
    attending.join()
    assert health(app)[1]["workers"]["alive"] == 0


def test_who_was_not_seen_for_a_day_is_forgotten(app: Flask) -> None:
    state = state_of(app)
    heartbeat.Heart(state).beat()
    with state.database.write() as connection:
        connection.execute(text("UPDATE communication_heartbeat SET seen_at = '2020-01-01 00:00:00.000000'"))
    heartbeat.Heart(state).beat()
    with state.database.read() as connection:
        assert len(heartbeat.seen(connection)) == 1


def test_a_heart_without_a_database_beats_on(make_app: MakeApp, database_url: str) -> None:
    heartbeat.Heart(state_of(make_app(database_url))).beat()


def test_health_names_what_is_paused_and_why(app: Flask) -> None:
    provider = Scripted()

    def refuse(sms: object) -> None:
        raise Refused("wrong password", http_status=401)

    provider.answer = refuse  # type: ignore[assignment]
    state_of(app).registry.register(provider)
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        work(app)
    (paused,) = health(app)[1]["circuits"]["paused"]  # type: ignore[misc]
    assert (paused["state"], paused["reason"]) == ("stopped", "wrong password")
    assert values(app)["communication_config_paused", "1", "stopped"] == 1


def test_metrics_count_what_is_due_and_what_became_of_messages(app: Flask) -> None:
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        work(app)
        SMS.send_msg(TO, "Hello", priority="high")
        make_due(app)
    found = values(app)
    assert found["communication_due_messages", "high"] == 1
    assert found["communication_due_messages", "bulk"] == 0
    assert found["communication_oldest_due_seconds", "high"] > 1000
    assert found["communication_messages", "sms", "1", "sent"] == 1
    assert found["communication_messages", "sms", "1", "queued"] == 1
    assert "communication_workers" in {name for name, *_ in found}


def test_metrics_are_for_those_who_may(make_app: MakeApp, upgraded_url: str) -> None:
    client = make_app(upgraded_url, authorize=None).test_client()
    assert client.get("/communication/metrics").status_code == 401
