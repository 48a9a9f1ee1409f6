"""Requests within the process: to a provider that is a blueprint of the same application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
from flask import Flask

from . import hosts

# Set in the WSGI environ of requests that come from this very process. A client cannot set it: what
# it sends arrives under names that begin with HTTP_.
INTERNAL = "flask_communication.internal"


class InProcess(httpx.BaseTransport):
    """An httpx transport into the application itself, over WSGI.

    Flask would lend an inner request the application context of the outer one, and with it ``g``
    and ``db.session``. An empty set of context variables hides it, so that the inner request is as
    separate as one over the network.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._wsgi = httpx.WSGITransport(
            app=self._marked, script_name=_script_name(app), raise_app_exceptions=True
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return hosts.empty_context().run(self._handle, request)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._wsgi.handle_request(request)
            try:
                # A view that streams needs its context until the last byte.
                body = b"".join(response.iter_raw())
            finally:
                response.close()
        except Exception as exc:
            # In an application that is tested, errors come out of the application.
            raise httpx.ReadError(f"the view raised {type(exc).__name__}") from exc
        return httpx.Response(
            response.status_code, headers=response.headers, stream=httpx.ByteStream(body)
        )

    def _marked(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[INTERNAL] = True
        return self._app(environ, start_response)


def _script_name(app: Flask) -> str:
    return str(app.config.get("APPLICATION_ROOT") or "").rstrip("/")
