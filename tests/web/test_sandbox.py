"""The HTML and the files of emails are shown so that they can do nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.apps import install
from tests.support.providers import Scripted
from tests.support.rest_email import PNG, encoded, sent


@pytest.fixture
def app(make_app: Callable[..., Flask], upgraded_url: str) -> Flask:
    app = make_app(upgraded_url)
    install(app, Scripted(), type="email")
    return app


def test_html_comes_in_a_page_that_may_do_nothing(app: Flask, client: FlaskClient) -> None:
    files = [
        {
            "filename": "logo.png",
            "content": encoded(PNG),
            "content_type": "image/png",
            "inline": True,
        }
    ]
    markup = (
        "<p>Hi</p><script>bad()</script><img src='cid:logo.png'><img src='https://x.example/t.png'>"
    )
    uuid = sent(client, html=markup, attachments=files)
    answer = client.get(f"/communication/email/html/{uuid}")
    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "img-src data:;" in policy
    assert "sandbox allow-popups" in policy
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "no-store" in answer.headers["Cache-Control"]
    assert "<p>Hi</p>" in answer.text
    assert f"data:image/png;base64,{encoded(PNG)}" in answer.text
    assert "bad()" not in answer.text
    assert "x.example" not in answer.text
    with_pictures = client.get(f"/communication/email/html/{uuid}?images=1")
    assert "https://x.example/t.png" in with_pictures.text
    assert "img-src data: https: http:" in with_pictures.headers["Content-Security-Policy"]


@pytest.mark.parametrize("html", [None, "<div>" * 5000])
def test_without_html_that_can_be_shown_the_text_is(client: FlaskClient, html: str | None) -> None:
    uuid = sent(client, body="<b>1 < 2</b>", html=html)
    assert (
        "<pre>&lt;b&gt;1 &lt; 2&lt;/b&gt;</pre>"
        in client.get(f"/communication/email/html/{uuid}").text
    )


@pytest.mark.parametrize(
    ("name", "kind", "content", "given", "how"),
    [
        ("bill.pdf", "application/pdf", b"%PDF", "application/pdf", "attachment"),
        ("page.html", "text/html", b"<script>", "application/octet-stream", "attachment"),
        ("x.svg", "image/svg+xml", b"<svg/>", "application/octet-stream", "attachment"),
        ("x.png", "image/png", PNG, "image/png", "inline"),
        ("x.png", "image/png", b"<script>alert(1)</script>", "image/png", "attachment"),
        ("x.js", "text/javascript", b"alert(1)", "application/octet-stream", "attachment"),
    ],
)
def test_a_file_is_given_so_that_it_can_do_nothing(
    client: FlaskClient, name: str, kind: str, content: bytes, given: str, how: str
) -> None:
    files = [{"filename": name, "content": encoded(content), "content_type": kind}]
    answer = client.get(f"/communication/email/file/{sent(client, attachments=files)}/0?inline=1")
    assert (answer.data, answer.mimetype) == (content, given)
    assert answer.headers["Content-Disposition"].startswith(f"{how}; filename={name}")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_a_files_name_is_told_as_rfc_6266_has_it(client: FlaskClient) -> None:
    files = [{"filename": 'Käse "1".pdf', "content": ""}]
    answer = client.get(f"/communication/email/file/{sent(client, attachments=files)}/0")
    assert "filename*=UTF-8''K%C3%A4se" in answer.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("email/html/nobody", 404),
        ("email/file/nobody/0", 404),
        ("email/file/{uuid}/7", 404),
        ("email/file/{uuid}/-1", 422),
        ("email/file/{uuid}/x", 422),
        ("email/html/{uuid}?colour=red", 422),
    ],
)
def test_what_is_not_there_is_told(client: FlaskClient, path: str, status: int) -> None:
    uuid = sent(client)
    assert client.get(f"/communication/{path.format(uuid=uuid)}").status_code == status
