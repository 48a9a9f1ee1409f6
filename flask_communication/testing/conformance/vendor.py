"""A vendor played by a test: it gives the answers of the test, and keeps the requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from ...errors import Denied, NotSent, OutcomeUnknown, Refused

# (status, body), (status, body, headers), an exception of httpx, or a function of the request. A
# body that is neither bytes nor str is sent as JSON.
VendorAnswer = tuple[int, Any] | tuple[int, Any, Mapping[str, str]] | type[httpx.HTTPError]
Played = VendorAnswer | Callable[[httpx.Request], httpx.Response]


class Vendor(httpx.BaseTransport):
    """An httpx transport for the provider: ``Acme(vendor)``, or ``Http(transport=vendor)``."""

    def __init__(self, answer: Played | None = None) -> None:
        self.heard: list[httpx.Request] = []
        self._answer: Played = answer if answer is not None else (404, {})

    def plays(self, answer: Played) -> None:
        """Give this answer from now on."""
        self._answer = answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Keep a request, and answer it."""
        request.read()
        self.heard.append(request)
        answer = self._answer
        if isinstance(answer, tuple):
            return _response(*answer)
        if isinstance(answer, type):
            raise answer("as the test wants it")
        return answer(request)


def _response(status: int, body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
    if isinstance(body, bytes | str):
        return httpx.Response(status, content=body, headers=headers)
    return httpx.Response(status, json=body, headers=headers)


_LATER = {"Retry-After": "7"}
# What happens at a vendor -> how a send ends. An instance of NotSent also says when to come back.
HOSTILE: Mapping[str, tuple[Played, Any]] = {
    "nobody listens": (httpx.ConnectError, NotSent),
    "no connection in time": (httpx.ConnectTimeout, NotSent),
    "no answer in time": (httpx.ReadTimeout, OutcomeUnknown),
    "the connection breaks": (httpx.ReadError, OutcomeUnknown),
    "it closes the connection": (httpx.RemoteProtocolError, OutcomeUnknown),
    "429 with Retry-After": ((429, {}, _LATER), NotSent("", retry_after=7)),
    "429": ((429, {}), NotSent),
    "503 with Retry-After": ((503, "busy", _LATER), NotSent("", retry_after=7)),
    "503": ((503, "busy"), OutcomeUnknown),
    "500": ((500, {"message": "oops"}), OutcomeUnknown),
    "502": ((502, "<html>bad gateway</html>"), OutcomeUnknown),
    "400": ((400, {"message": "bad number"}), Refused),
    "401": ((401, {"message": "bad key"}), Denied),
    "a redirect": ((302, "", {"Location": "https://elsewhere.example/"}), OutcomeUnknown),
    "200 and nothing": ((200, b""), OutcomeUnknown),
    "200 and garbage": ((200, b"\xff\xfe{"), OutcomeUnknown),
    "200 and HTML": ((200, "<html>welcome</html>"), OutcomeUnknown),
    "200 and null": ((200, "null"), OutcomeUnknown),
    "200 and a list": ((200, ["?"]), OutcomeUnknown),
    "200 and no id": ((200, {}), OutcomeUnknown),
    "200 and too deep": ((200, b'{"id":' + b"[" * 100_000), OutcomeUnknown),
    "200 and too much": ((200, b"x" * 1_000_000), OutcomeUnknown),
}
