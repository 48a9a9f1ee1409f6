"""``health``: for strangers, and without tables."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask

MakeApp = Callable[..., Flask]


def test_health_tells_strangers_nothing(make_app: MakeApp, upgraded_url: str, app: Flask) -> None:
    answer = make_app(upgraded_url, authorize=None).test_client().get("/communication/health")
    assert (answer.status_code, answer.json) == (200, {"success": True})
    told = app.test_client().get("/communication/health").json
    assert told is not None
    assert told["data"]["database"] == {"ok": True, "due": 0, "oldest_due_seconds": None}


def test_health_says_what_to_do_about_missing_tables(make_app: MakeApp, database_url: str) -> None:
    answer = make_app(database_url).test_client().get("/communication/health")
    assert answer.status_code == 503
    assert "flask communication upgrade" in answer.get_data(as_text=True)
    sent = (
        make_app(database_url)
        .test_client()
        .post("/communication/sms/send", json={"msg": "x", "destination": "+919999911111"})
    )
    assert sent.status_code == 503
    assert "flask communication upgrade" in sent.get_data(as_text=True)
