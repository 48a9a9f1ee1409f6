"""``worker``, ``upgrade`` and ``sync``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from flask import Flask

from tests.support.commands import run

MakeApp = Callable[..., Flask]
TO = "+919999911111"


def test_from_nothing_to_a_delivered_sms(make_app: MakeApp, database_url: str) -> None:
    app = make_app(database_url)
    assert "communication upgrade" in run(app, "send-sms", TO, "Hello", expect=1)
    assert "up to date" in run(app, "upgrade")
    assert "config add" in run(app, "send-sms", TO, "Hello", expect=1)
    assert "configuration 1 stored" in run(
        app, "config", "add", "--type", "sms", "--provider-pkg-name", "simulator"
    )
    uuid = run(app, "send-sms", TO, "Hello").strip()
    assert "is queued" in run(app, "show", uuid)
    assert "1 messages attempted" in run(app, "worker", "--burst")
    assert "still open" in run(app, "sync")
    told = run(app, "show", uuid)
    assert "accepted" in told
    assert f"to {TO}" in told
    assert "next:" in told
    assert uuid in run(app, "messages", "--to", TO)


def test_rq_cron_knows_what_to_ring_for(redis_url: str) -> None:
    from redis import Redis
    from rq.cron import CronScheduler

    import flask_communication.jobs  # noqa: F401

    scheduler = CronScheduler(connection=Redis.from_url(redis_url))
    sys.modules.pop("flask_communication.jobs")
    scheduler.load_config_from_file("flask_communication.jobs")
    (job,) = scheduler.get_jobs()
    assert (job.queue_name, job.interval) == ("communication", 15)
