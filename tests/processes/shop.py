"""The web application of the main job's test: what FLASK_APP names, in the web process and the
workers.
"""

import os

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy

from flask_communication import SMS, Communication
from tests.chaos.worker import shorten
from tests.support.apps import allow

db = SQLAlchemy()
communication = Communication()


def create_app() -> Flask:
    """Make the shop as the environment says."""
    if "SHOP_LEASE" in os.environ:
        shorten(float(os.environ["SHOP_LEASE"]))
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="of a test",
        SQLALCHEMY_DATABASE_URI=os.environ["SHOP_DATABASE"],
        COMMUNICATION_REDIS_URL=os.environ.get("SHOP_REDIS"),
        COMMUNICATION_ENCRYPTION_KEYS=[os.environ["SHOP_KEY"]],
        COMMUNICATION_PROVIDERS={"pages": {"url": os.environ["SHOP_PROVIDER"]}},
        # The mail server of the test is on this machine.
        COMMUNICATION_ALLOW_PRIVATE_HOSTS=["127.0.0.1"],
        COMMUNICATION_CONCURRENCY=int(os.environ.get("SHOP_CONCURRENCY", "10")),
    )
    db.init_app(app)
    communication.init_app(app, db, authorize=allow)

    @app.post("/order")
    def order() -> dict[str, str]:
        return {"uuid": SMS.send_msg(request.form["to"], request.form["msg"])}

    return app
