"""``token …`` and ``generate-key``."""

from __future__ import annotations

from flask import Flask

from tests.support.commands import run


def test_tokens_are_made_listed_and_revoked(app: Flask) -> None:
    token = run(
        app, "token", "create", "billing", "--scope", "message.send", "--days", "30"
    ).strip()
    assert token.startswith("fc_")
    public = token.split("_")[1]
    listed = run(app, "token", "list")
    assert public in listed
    assert token not in listed
    client = app.test_client()
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get("/communication/messages", headers=headers).status_code == 403
    assert "revoked" in run(app, "token", "revoke", public)
    assert client.get("/communication/messages", headers=headers).status_code == 401
    assert "no valid token" in run(app, "token", "revoke", public, expect=1)


def test_a_key_from_generate_key_can_be_used(app: Flask) -> None:
    from flask_communication.configs.settings import Settings

    Settings.from_config({"COMMUNICATION_ENCRYPTION_KEYS": [run(app, "generate-key").strip()]})
