"""A shop: customers order, and get an SMS if and only if the order is saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask
from flask_migrate import Migrate

from flask_communication import Communication, signals

from . import orders, people
from .models import db

migrate = Migrate()
communication = Communication()


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application; SHOP_<NAME> in the environment becomes the setting <NAME>."""
    app = Flask(__name__)
    # Lax: a browser does not send the session along with a form of another site.
    app.config.update(
        SQLALCHEMY_DATABASE_URI="sqlite:///shop.sqlite",
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,
    )
    app.config.from_prefixed_env("SHOP")
    app.config.update(config or {})
    if not app.config.get("SECRET_KEY"):
        raise RuntimeError("set SHOP_SECRET_KEY to a long random word")

    db.init_app(app)
    migrate.init_app(app, db, directory=str(Path(app.root_path).parent / "migrations"))
    communication.init_app(app, db, authorize=people.may)
    app.register_blueprint(people.blueprint)
    app.register_blueprint(orders.blueprint)
    app.before_request(people.wall)
    signals.message_delivered.connect(orders.mark_notified, app)
    return app
