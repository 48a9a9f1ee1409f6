"""The application that is measured.

The environment says which database, Redis and provider it has.
"""

from __future__ import annotations

import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_communication import Communication
from flask_communication.configs import store
from flask_communication.configs.state import state_of

db = SQLAlchemy()


def make(
    url: str, stub: str, key: str, *, redis: str | None = None, embedded: bool = False
) -> Flask:
    """Make the application; ``stub`` is the address of the provider ``plain`` or ``bulk``."""
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=url,
        COMMUNICATION_ENCRYPTION_KEYS=[key],
        COMMUNICATION_PROVIDERS={"stub": {"url": stub}},
        COMMUNICATION_EMBEDDED_WORKER=embedded,
        # The SMTP sink.
        COMMUNICATION_ALLOW_PRIVATE_HOSTS=["127.0.0.1"],
        COMMUNICATION_CONCURRENCY=int(os.environ.get("BENCH_CONCURRENCY", "50")),
        COMMUNICATION_REDIS_URL=redis,
    )
    db.init_app(app)
    Communication(app, db)
    return app


def prepare(app: Flask) -> None:
    """Make our tables and one configuration, the default."""
    from flask_communication.storage import migrations

    state = state_of(app)
    migrations.upgrade(state.database)
    fields = {"type": "sms", "provider": "stub", "provider_pkg_name": "stub", "is_default": True}
    store.create(state, fields | {"config": {"sender": "BENCH"}})


def create_app() -> Flask:
    """Make it as the environment says: for ``flask --app benchmarks.host``, and for RQ."""
    return make(
        os.environ["BENCH_DATABASE"],
        os.environ["BENCH_STUB"],
        os.environ["BENCH_KEY"],
        redis=os.environ.get("BENCH_REDIS"),
        embedded="BENCH_EMBEDDED" in os.environ,
    )
