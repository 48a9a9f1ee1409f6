"""``suppressions``: the recipients that get no more messages."""

from __future__ import annotations

from typing import Any

from flask import Response

from ...configs.state import current
from ...delivery import actions
from ...delivery.policy import suppression
from .. import queries, schemas
from ..endpoints import Endpoint
from ..envelope import ok


@Endpoint(
    "GET",
    "/suppressions",
    "suppression.read",
    query=queries.SuppressionFilter,
    answer=schemas.Suppression(many=True),
    is_paged=True,
)
def list_suppressions(query: dict[str, Any]) -> Response:
    """List the suppressed recipients, newest first."""
    page = suppression.page(current(), **query)
    return ok(data=schemas.Suppression(many=True).dump(page.items), next=page.next)


@Endpoint("POST", "/suppressions", "suppression.write", body=schemas.Suppress, errors=(404,))
def create_suppression(body: dict[str, Any]) -> Response:
    """Send nothing more to a recipient."""
    actions.suppress(current(), **body)
    return ok("Successfully suppressed")


@Endpoint("DELETE", "/suppressions", "suppression.delete", body=schemas.Unsuppress, errors=(404,))
def delete_suppression(body: dict[str, Any]) -> Response:
    """Let a recipient be written to again."""
    actions.unsuppress(current(), **body)
    return ok("Successfully deleted")
