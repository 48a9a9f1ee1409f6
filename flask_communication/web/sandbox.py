"""The HTML, files and source of emails, sandboxed: what strangers sent can do nothing here."""

from __future__ import annotations

import base64
import io
from html import escape

from flask import Response, make_response, send_file

from ..configs.state import current
from ..email import Email, incoming
from ..errors import InvalidQuery, MessageNotFound
from ..formats import html as markup
from ..storage import messages
from ..storage.models import Message
from . import queries
from .endpoints import Endpoint

# Pictures of a mail that stand in its HTML: each, and all together, in bytes.
LARGEST_PICTURE = 1_000_000
ALL_PICTURES = 5_000_000
# The sandbox allows links to open, and nothing else. The HTML is sanitised as well.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src {pictures}; form-action 'none'; "
    "base-uri 'none';"
    " frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
_PAGE = (
    '<!DOCTYPE html><html><head><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
    "<title>Mail</title></head><body>{body}</body></html>"
)
ANY_FILE = "application/octet-stream"
_FILE_POLICY = "default-src 'none'; sandbox"
# Types that a browser may be told: it shows none of them as a page.
_PLAIN = frozenset(markup.IMAGE_SIGNATURES) | {"application/pdf", "application/zip"}


@Endpoint(
    "GET",
    "/email/html/<uuid>",
    "message.read",
    query=queries.HTMLOptions,
    produces="text/html",
    errors=(404,),
)
def show_html(uuid: str, query: dict[str, str]) -> Response:
    """Show an email's HTML, or its text, as a page for a sandboxed frame."""
    remote = query.get("images") == "1"
    message = _email(uuid)
    assert message.mail is not None
    raw = message.mail.html
    if raw and markup.is_safe_to_parse(raw):
        body = markup.sanitize(raw, _pictures(message), remote=remote)
    else:
        body = f"<pre>{escape(message.body)}</pre>"
    answer = make_response(_PAGE.format(body=body))
    allowed = "data: https: http:" if remote else "data:"
    return _closed(answer, _POLICY.format(pictures=allowed))


def _email(uuid: str) -> Message:
    message = Email.get(uuid)
    if message.mail is None:
        raise MessageNotFound(f"message {uuid} has no email")
    return message


def _pictures(message: Message) -> dict[str, str]:
    assert message.mail is not None
    found: dict[str, str] = {}
    room = ALL_PICTURES
    for one in message.mail.attachments:
        if one.content_id is None or one.content_type.lower() not in markup.IMAGE_SIGNATURES:
            continue
        content = messages.file(current().database, message.uuid, one.place).content
        if len(content) <= min(LARGEST_PICTURE, room) and markup.is_image(
            one.content_type, content
        ):
            room -= len(content)
            encoded = base64.b64encode(content).decode()
            found[one.content_id] = f"data:{one.content_type.lower()};base64,{encoded}"
    return found


@Endpoint(
    "GET",
    "/email/file/<uuid>/<place>",
    "message.read",
    query=queries.FileOptions,
    produces=ANY_FILE,
    errors=(404,),
)
def show_file(uuid: str, place: str, query: dict[str, str]) -> Response:
    """Return a file of an email to be saved; a picture may be shown."""
    inline = query.get("inline") == "1"
    if not (place.isascii() and place.isdigit() and len(place) < 6):
        raise InvalidQuery({"place": ["must be a whole number, from 0"]})
    found = messages.file(current().database, uuid, int(place))
    shown = inline and markup.is_image(found.content_type, found.content)
    answer = send_file(
        io.BytesIO(found.content),
        mimetype=found.content_type if found.content_type in _PLAIN else ANY_FILE,
        as_attachment=not shown,
        download_name=found.filename,
        etag=False,
    )
    return _closed(answer, _FILE_POLICY)


@Endpoint("GET", "/messages/<uuid>/raw", "message.read", produces=ANY_FILE, errors=(404,))
def show_raw(uuid: str) -> Response:
    """Return a received email as it came, to be saved."""
    answer = send_file(
        io.BytesIO(incoming.raw(current(), uuid)),
        mimetype=ANY_FILE,
        as_attachment=True,
        download_name=f"{uuid}.eml",
        etag=False,
    )
    return _closed(answer, _FILE_POLICY)


def _closed(answer: Response, policy: str) -> Response:
    answer.headers["Content-Security-Policy"] = policy
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    answer.headers["Cache-Control"] = "private, no-store"
    answer.vary.add("Cookie")
    return answer
