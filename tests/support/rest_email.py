"""An email to send over REST."""

from __future__ import annotations

import base64
from typing import Any

from flask.testing import FlaskClient

ANN, BOB = "ann@example.com", "bob@example.com"
PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 20
MAIL = {"to": ANN, "subject": "Hi", "body": "Hello", "sender": "shop@example.com"}


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def sent(client: FlaskClient, **fields: Any) -> str:
    """Send an email with these fields too, and return its uuid."""
    answer = client.post("/communication/email/send/", json={**MAIL, **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json["data"]["msg_uuid"])  # type: ignore[index]
