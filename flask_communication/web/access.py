"""Authorisation: a token's scopes, or the host's ``authorize``; and protection against CSRF."""

from __future__ import annotations

import hmac
import logging
import secrets
from urllib.parse import urlsplit

from flask import Blueprint, Response, after_this_request, current_app, g, request, url_for
from itsdangerous import BadSignature, URLSafeSerializer

from ..configs import tokens
from ..configs.state import State, current
from .envelope import BadRequest

log = logging.getLogger(__name__)

COOKIE = "communication_csrf"
HEADER = "X-CSRF-Token"
FIELD = "csrf_token"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def admit(action: str, resource: object = None) -> None:
    """Raise :class:`BadRequest` (401, 403) unless this request's caller may do ``action``."""
    state = current()
    bearer = _bearer()
    if bearer is not None:
        _admit_token(state, bearer, action)
    elif not may(action, resource):
        raise BadRequest(403 if state.authorize else 401, _why(state))
    elif has_ambient_credentials():
        _check_csrf()


def is_admitted(action: str) -> bool:
    """Tell whether this request's caller may do ``action``, for a view without an action."""
    try:
        admit(action)
    except BadRequest:
        return False
    return True


def may(action: str, resource: object = None) -> bool:
    """Return what the host's ``authorize`` says of this request; if it raises, False."""
    authorize = current().authorize
    if authorize is None:
        return False
    try:
        return bool(authorize(action, resource))
    except Exception:
        log.exception("authorize(%r) failed, which denies", action)
        return False


def _why(state: State) -> str:
    if state.authorize is None:
        return "send a bearer token; people are let in by Communication(authorize=…)"
    return "you may not do this"


def _bearer() -> str | None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _admit_token(state: State, presented: str, action: str) -> None:
    token = tokens.check(state, presented)
    if token is None:
        raise BadRequest(401, "the bearer token is not valid")
    if not tokens.allows(token, action):
        raise BadRequest(403, f"the token has no scope {action}")
    g.communication_token = token


def is_token() -> bool:
    """Tell whether this request was let in by a bearer token."""
    return "communication_token" in g


def has_ambient_credentials() -> bool:
    """Tell whether a browser may have added credentials by itself, for a page of another site."""
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    marks = ("Cookie", "Origin", "Sec-Fetch-Site")
    return scheme in ("basic", "digest", "negotiate") or any(m in request.headers for m in marks)


def _check_csrf() -> None:
    if request.method in SAFE:
        if current_app.secret_key:
            after_this_request(_set_cookie)
        return
    if not _is_same_origin():
        raise BadRequest(403, "the request comes from another site")
    # Without a SECRET_KEY there is no token to send; this says so.
    _serializer()
    given = request.headers.get(HEADER) or request.form.get(FIELD, "")
    cookie = request.cookies.get(COOKIE, "")
    if (
        not given
        or not hmac.compare_digest(given.encode(), cookie.encode())
        or not _is_ours(cookie)
    ):
        raise BadRequest(
            403, f"send the cookie {COOKIE} again as {HEADER}; any GET of ours sets it"
        )


def _is_same_origin() -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin") or request.headers.get("Referer")
    return origin is None or urlsplit(origin).netloc == request.host


def _serializer() -> URLSafeSerializer:
    if not current_app.secret_key:
        raise BadRequest(403, "the application needs a SECRET_KEY for requests with cookies")
    return URLSafeSerializer(current_app.secret_key, salt="communication-csrf")


def _is_ours(cookie: str) -> bool:
    try:
        _serializer().loads(cookie)
    except BadSignature:
        return False
    return True


def csrf_token() -> str:
    """Return the token that a form or a script of this browser sends back."""
    known = request.cookies.get(COOKIE, "")
    if known and _is_ours(known):
        return known
    if "communication_csrf" not in g:
        made = _serializer().dumps(secrets.token_urlsafe(16))
        g.communication_csrf = made if isinstance(made, str) else made.decode()
    return str(g.communication_csrf)


def _set_cookie(response: Response) -> Response:
    token = csrf_token()
    if request.cookies.get(COOKIE) != token:
        root = url_for("communication.health").removesuffix("health")
        response.set_cookie(COOKIE, token, samesite="Strict", secure=request.is_secure, path=root)
    return response


def exempt_from_the_hosts_csrf(blueprint: Blueprint) -> None:
    """Exempt our views, which have their own CSRF check, from that of the host's Flask-WTF."""

    def exempt(endpoint: str | None, _values: object) -> None:
        # Flask-WTF checks in a before_request of the app, and asks for the names it has exempted.
        protection = current_app.extensions.get("csrf")
        if protection is not None and endpoint is not None:
            view = current_app.view_functions.get(endpoint)
            if view is not None:
                protection.exempt(view)

    blueprint.url_value_preprocessor(exempt)
