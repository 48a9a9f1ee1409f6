"""``messages/…``: messages of all channels, listed, shown and decided about."""

from __future__ import annotations

from typing import Any

from flask import Response

from ...configs.state import current
from ...delivery import actions
from ...delivery.channel import channel_of_message
from ...storage import messages
from .. import queries, schemas
from ..endpoints import Endpoint
from ..envelope import ok


@Endpoint(
    "GET",
    "/messages",
    "message.read",
    query=queries.MessageFilter,
    answer=schemas.Message(many=True),
    is_paged=True,
)
def list_messages(query: dict[str, Any]) -> Response:
    """List messages, newest first."""
    state = current()
    page = messages.page(
        state.database, **query, region=state.settings.default_region, channels=state.channels
    )
    return ok(data=schemas.Message(many=True).dump(page.items), next=page.next)


@Endpoint("GET", "/messages/<uuid>", "message.read", answer=schemas.Story, errors=(404,))
def show_message(uuid: str) -> Response:
    """Show a message with its attempts and events."""
    return ok(data=schemas.Story().dump(messages.get(current().database, None, uuid)))


@Endpoint("POST", "/messages/<uuid>/cancel", "message.cancel", errors=(404, 409))
def cancel_message(uuid: str) -> Response:
    """Stop a message that has not left."""
    state = current()
    actions.cancel(state, channel_of_message(state, uuid), uuid)
    return ok("Successfully cancelled")


@Endpoint(
    "POST", "/messages/<uuid>/resolve", "message.resolve", body=schemas.Resolve, errors=(404, 409)
)
def resolve_message(uuid: str, body: dict[str, Any]) -> Response:
    """Store what became of an unknown message."""
    state = current()
    actions.resolve(state, channel_of_message(state, uuid), uuid, body["decision"])
    return ok("Successfully resolved")


@Endpoint("POST", "/messages/<uuid>/release", "message.release", errors=(404, 409))
def release_message(uuid: str) -> Response:
    """Let a held message pass."""
    state = current()
    actions.release(state, channel_of_message(state, uuid), uuid)
    return ok("Successfully released")
