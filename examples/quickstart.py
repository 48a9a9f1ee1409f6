"""Flask-Communication in one file: SQLite, the embedded worker, and a provider that sends nowhere.

``python examples/quickstart.py`` serves it, sends an SMS and an email through it and follows them
to `delivered`. With ONCE=1 in the environment it ends then; without it, it goes on serving.
"""

import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
from cryptography.fernet import Fernet
from flask import Flask, abort, request
from flask_sqlalchemy import SQLAlchemy
from werkzeug.serving import make_server

from flask_communication import SMS, Communication, Email

db = SQLAlchemy()
communication = Communication()
# Who may use the pages and the REST interface: here, whoever knows the word that the demo prints.
PASSWORD = secrets.token_urlsafe(8)


def authorize(action: str, resource: object = None) -> bool:
    """Say who may do what; your app asks its own login here."""
    return secrets.compare_digest(request.headers.get("X-Demo-Password", ""), PASSWORD)


def create_app(folder: Path) -> Flask:
    """Make the application; its database is a file in ``folder``."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = secrets.token_hex()
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder / 'quickstart.sqlite'}"
    app.config["COMMUNICATION_DEFAULT_SENDER"] = "Shop <shop@example.com>"
    app.config["COMMUNICATION_ENCRYPTION_KEYS"] = [Fernet.generate_key().decode()]
    db.init_app(app)
    communication.init_app(app, db, authorize=authorize)

    @app.post("/signup")
    def signup() -> dict[str, str]:
        number = request.form.get("number") or abort(400, "a number, please")
        return {
            "uuid": SMS.send_msg(destination=number, msg="Your code is 123456", priority="high")
        }

    @app.post("/order")
    def order() -> dict[str, str]:
        email = Email(
            to=request.form.get("email") or abort(400, "an address, please"),
            subject="Your order",
            html="<p>Thank you! The bill is attached.</p>",
        )
        return {"uuid": email.attach(b"Total: 17.00", "bill.txt").send()}

    return app


def prepare(app: Flask) -> None:
    """Make the tables and a configuration for each channel, as an operator would."""
    communication.upgrade(app)
    for channel in ("sms", "email"):
        add = f"communication config add --type {channel} --provider-pkg-name simulator"
        app.test_cli_runner().invoke(args=add.split(), catch_exceptions=False)


def serve(app: Flask) -> str:
    """Serve the application from a thread of this process; return its address."""
    port = int(os.environ.get("PORT") or _free_port())
    server = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def follow(address: str, uuid: str, seconds: float = 30.0) -> str:
    """Print each new status of a message until it is over; return the last one."""
    seen, begun = "", time.monotonic()
    while time.monotonic() - begun < seconds:
        answer = httpx.get(
            f"{address}/communication/messages/{uuid}", headers={"X-Demo-Password": PASSWORD}
        )
        found = answer.raise_for_status().json()["data"]["status"]
        if found != seen:
            print(f"  {time.monotonic() - begun:5.2f} s  {found}", flush=True)
        seen = found
        if seen in ("delivered", "undelivered", "failed", "rejected"):
            break
        time.sleep(0.02)
    return seen


def show(app: Flask, uuid: str) -> None:
    """Print an email as the record of messages has it."""
    with app.app_context():
        email = Email.get(uuid)
    print(f"  from {email.sender} to {', '.join(one.address for one in email.recipients)}")
    print(f"  {email.mail.subject}: {email.body}")
    print(f"  with {', '.join(one.filename for one in email.mail.attachments)}")


def main() -> int:
    """Show the main job from beginning to end."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Path(folder))
        prepare(app)
        address = serve(app)
        print(f"Flask is serving {address}; sending an SMS to +91 99999 11111 through it:")
        uuid = httpx.post(f"{address}/signup", data={"number": "+91 99999 11111"}).json()["uuid"]
        if follow(address, uuid) != "delivered":
            print("the SMS was not delivered", file=sys.stderr)
            return 1
        print("and an email:")
        uuid = httpx.post(f"{address}/order", data={"email": "ann@example.com"}).json()["uuid"]
        show(app, uuid)
        if follow(address, uuid) != "delivered":
            print("the email was not delivered", file=sys.stderr)
            return 1
        if not os.environ.get("ONCE"):
            print(f"\nThe app goes on serving {address}; Ctrl+C ends it. Try:")
            print(f"  curl -d number=+15550100 {address}/signup")
            print(f"  curl -H 'X-Demo-Password: {PASSWORD}' {address}/communication/messages/")
            _wait()
    return 0


def _wait() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    sys.exit(main())
