"""Requests by an httpx transport instead of the network: to a WSGI application, or a test."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from .net.sockets import TROUBLE as _TROUBLE
from .net.sockets import Answer

# Failures that say by their type that nothing left.
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
TROUBLE = (httpx.TransportError, httpx.StreamError, *_TROUBLE)


def exchange(
    transport: httpx.BaseTransport,
    method: str,
    url: httpx.URL,
    headers: Mapping[str, str],
    body: bytes,
) -> Answer:
    """Make a request and return the beginning of its answer; raise one of TROUBLE."""
    response = transport.handle_request(
        httpx.Request(method, url, content=body, headers=dict(headers))
    )
    # The stream of a response made in memory was read when it was made.
    parts = iter([response.content]) if response.is_stream_consumed else response.iter_raw()
    return Answer(response.status_code, response.headers, parts, response.close)
