"""``health`` and ``metrics``: who attends, what is late, what is paused."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from flask_communication import SMS
from flask_communication.configs.state import state_of
from flask_communication.delivery.worker import heartbeat
from flask_communication.delivery.worker.worker import Worker
from flask_communication.providers.base import Accepted, OutboundSMS, Refused
from tests.support.apps import TO, MakeApp, install, make_due, work
from tests.support.providers import Scripted


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str, provider: Scripted) -> Flask:
    app = make_app(upgraded_url)
    install(app, provider)
    return app


def health(app: Flask) -> tuple[int, dict[str, Any]]:
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


def test_a_burst_is_over_when_it_is_over(app: Flask) -> None:
    with app.app_context():
        SMS.send_msg(TO, "Hello")
    work(app)
    assert health(app)[1]["workers"]["alive"] == 0
    assert "communication_worker_seen_seconds" not in {name for name, *_ in values(app)}


def test_a_worker_that_bursts_again_is_seen_again(app: Flask) -> None:
    seen: list[object] = []

    class Watching(Scripted):
        name = "watching"

        def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
            seen.append(health(app)[1]["workers"]["alive"])
            return super().send_sms(sms, config)

    install(app, Watching(), is_default=True)
    worker = Worker(state_of(app))
    for _ in range(2):
        with app.app_context():
            SMS.send_msg(TO, "Hello")
        worker.burst()
    assert seen == [1, 1]


def test_health_tells_every_configuration_and_counts_messages(app: Flask) -> None:
    install(app, Scripted(), key="otp")
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        work(app)
        SMS.send_msg(TO, "Hello", key="otp")
    told = health(app)[1]
    assert told["circuits"]["configs"] == [
        {"config_id": 1, "key": None, "type": "sms", "state": "closed"},
        {"config_id": 2, "key": "otp", "type": "sms", "state": "closed"},
    ]
    assert told["messages"]["by_status"] == {"sent": 1, "queued": 1}
    assert told["messages"]["by_config"] == {"1": {"sent": 1}, "2": {"queued": 1}}
    assert values(app)["communication_config_paused", "2", "otp", "closed"] == 0


def test_the_command_line_says_what_health_says(app: Flask) -> None:
    runner = app.test_cli_runner()
    told = runner.invoke(args=["communication", "health"])
    assert told.exit_code == 0
    assert json.loads(told.output)["data"].keys() == health(app)[1].keys()
    with app.app_context():
        SMS.send_msg(TO, "Hello")
    make_due(app)
    told = runner.invoke(args=["communication", "health"])
    assert told.exit_code == 1
    assert json.loads(told.output)["success"] is False


def test_the_command_line_says_that_tables_are_missing(
    make_app: MakeApp, database_url: str
) -> None:
    told = make_app(database_url).test_cli_runner().invoke(args=["communication", "health"])
    assert told.exit_code == 1
    assert "flask communication upgrade" in told.output


def test_who_was_not_seen_for_an_hour_is_forgotten(app: Flask) -> None:
    state = state_of(app)
    heartbeat.Heart(state).beat()
    with state.database.write() as connection:
        connection.execute(
            text("UPDATE communication_heartbeat SET seen_at = '2020-01-01 00:00:00.000000'")
        )
    with state.database.read() as connection:
        assert not heartbeat.seen(connection)
    heartbeat.Heart(state).beat()
    with state.database.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM communication_heartbeat")) == 1


def test_a_heart_without_a_database_beats_on(make_app: MakeApp, database_url: str) -> None:
    heartbeat.Heart(state_of(make_app(database_url))).beat()


def test_health_names_what_is_paused_and_why(app: Flask) -> None:
    provider = Scripted()

    def refuse(_sms: object) -> None:
        raise Refused("wrong password", http_status=401)

    provider.answer = refuse  # type: ignore[assignment]
    state_of(app).registry.register(provider)
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        work(app)
    (paused,) = health(app)[1]["circuits"]["paused"]
    assert (paused["state"], paused["reason"]) == ("stopped", "wrong password")
    assert values(app)["communication_config_paused", "1", "", "stopped"] == 1


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
