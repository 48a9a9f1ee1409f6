"""``suppressions/``: who must not be written to."""

from __future__ import annotations

from typing import Any

from ...configs.state import current
from ...delivery.policy import suppression
from ...email import Email
from ...sms import SMS
from .. import access, schemas
from ..envelope import loaded, ok, query
from .messages import number, recipient


@access.needs("suppression.read")
def listing() -> Any:
    """List the suppressed recipients, newest first."""
    given: dict[str, Any] = query("channel", "destination", "after", "limit")
    if "limit" in given:
        given["limit"] = number("limit", given["limit"])
    if "destination" in given:
        given["destination"] = recipient(given["destination"])
    page = suppression.page(current(), **given)
    return ok(data=schemas.Suppression(many=True).dump(page.items), next=page.next)


@access.needs("suppression.write")
def create() -> Any:
    """Put a recipient on the list."""
    given = loaded(schemas.Suppress)
    _channel(given["destination"]).suppress(**given)
    return ok("Successfully suppressed")


@access.needs("suppression.delete")
def delete() -> Any:
    """Take a recipient off the list."""
    given = loaded(schemas.Unsuppress)
    _channel(given["destination"]).unsuppress(**given)
    return ok("Successfully deleted")


def _channel(destination: str) -> type[Email] | type[SMS]:
    return Email if "@" in destination else SMS
