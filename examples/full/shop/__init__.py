"""A shop: an application factory with its own models, login and migrations."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, abort, redirect, request, session, url_for
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from werkzeug.security import check_password_hash, generate_password_hash

from flask_communication import SMS, Communication, signals

db = SQLAlchemy()
migrate = Migrate()
communication = Communication()


def authorize(action: str, resource: Any = None) -> bool:
    """Let staff do everything, and anybody who is logged in read."""
    from .models import User

    user = db.session.get(User, session.get("user_id", 0))
    return user is not None and (user.is_staff or action.endswith(".read"))


def create_app(**config: Any) -> Flask:
    """Make the shop; the environment, then ``config``, says how."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY", "of a demonstration")
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///shop.sqlite")
    app.config["COMMUNICATION_REDIS_URL"] = os.environ.get("REDIS_URL")
    app.config["COMMUNICATION_ENCRYPTION_KEYS"] = os.environ.get("ENCRYPTION_KEYS", "").split()
    app.config.update(config)
    from . import models

    db.init_app(app)
    migrate.init_app(app, db)
    communication.init_app(app, db, authorize=authorize)
    signals.message_delivered.connect(models.order_was_notified, app)
    _routes(app)
    return app


def _routes(app: Flask) -> None:
    from .models import Order, User

    @app.cli.command("add-user")
    def add_user() -> None:
        """Add the staff user `ann` with the password `secret`."""
        db.session.add(User(name="ann", password=generate_password_hash("secret"), is_staff=True))
        db.session.commit()

    @app.post("/login")
    def login() -> Any:
        user = db.session.scalar(db.select(User).filter_by(name=request.form["name"]))
        if user is None or not check_password_hash(user.password, request.form["password"]):
            abort(403)
        session["user_id"] = user.id
        return redirect(url_for("communication.list_messages"))

    @app.post("/orders")
    def order() -> Any:
        # One transaction: no order without its SMS, no SMS without its order.
        made = Order(phone=request.form["phone"])
        db.session.add(made)
        made.sms = SMS.send_msg(made.phone, "Thank you for your order", session=db.session)
        if request.form.get("card") == "declined":
            db.session.rollback()
            return {"error": "the card was declined"}, 402
        db.session.commit()
        return {"order": made.id, "sms": made.sms}
