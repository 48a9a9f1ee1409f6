"""What a remote provider says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError

from . import contract
from .base import OutcomeUnknown
from .http import Reply, clean

_MANIFEST = contract.Manifest()


@dataclass(frozen=True)
class Known:
    """A manifest (its defaults where there is none) and until when it is believed."""

    label: str = ""
    types: tuple[str, ...] = ("sms",)
    features: frozenset[str] = frozenset()
    config_schema: Mapping[str, Any] | None = None
    idempotency_window: float = 0.0
    report_after: float = 60.0
    bulk_limit: int = 500


NONE = Known()


def read(reply: Reply) -> Known:
    """Read the answer to ``GET <root>/``; raise :class:`OutcomeUnknown` where it should be asked again."""
    if reply.status == 429 or reply.status >= 500:
        raise OutcomeUnknown(f"it answered {reply.status}", http_status=reply.status)
    if reply.status != 200 or not isinstance(reply.json, dict):
        return NONE
    try:
        given = _MANIFEST.load(reply.json)
    except ValidationError:
        return NONE
    return Known(
        label=clean(given["label"]),
        types=tuple(given["types"]),
        features=frozenset(given["features"]),
        config_schema=given["config_schema"],
        idempotency_window=given["idempotency_window"],
        report_after=given["report_after"],
        bulk_limit=given["bulk_limit"],
    )
