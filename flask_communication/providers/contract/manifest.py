"""What a remote provider says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError

from ..base import NotSent, OutcomeUnknown
from ..http import Reply, clean
from . import sms

_MANIFEST = sms.Manifest()


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
NO_MANIFEST = (
    "without a manifest: it is called for SMS, with the bodies of the contract and nothing more"
)


def read(reply: Reply) -> Known:
    """Read the answer to ``GET <root>/``.

    Raise :class:`OutcomeUnknown` where it should be asked again.
    """
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


def examine(reply: Reply) -> str:
    """Say what the answer to ``GET <root>/`` tells a person.

    Raise :class:`NotSent` if it is wrong.
    """
    if reply.status in (404, 405):
        return f"it answers {reply.status}, {NO_MANIFEST}"
    if reply.status != 200:
        raise NotSent(
            f"it answers GET with {reply.status}; it should be 200 with a manifest, or 404"
        )
    if not isinstance(reply.json, dict):
        return f"it answers with no JSON object, {NO_MANIFEST}"
    try:
        name = _MANIFEST.load(reply.json)["name"]
    except ValidationError as wrong:
        raise NotSent(
            f"its manifest is passed over, because it is wrong: {_faults(wrong)}"
        ) from None
    return f"it is {clean(name)}; " + describe(read(reply))


def _faults(wrong: ValidationError) -> str:
    messages = wrong.messages if isinstance(wrong.messages, dict) else {"_": wrong.messages}
    return clean("; ".join(f"{field}: {why}" for field, why in messages.items()))


def describe(known: Known) -> str:
    """Say what a manifest was understood to say, in one line."""
    said = [f"types {', '.join(map(clean, known.types)) or 'none'}"]
    said += [f"features {', '.join(map(clean, sorted(known.features))) or 'none'}"]
    if known.idempotency_window:
        said.append(f"a repeated key is ignored for {known.idempotency_window:g} s")
    properties = (known.config_schema or {}).get("properties")
    if isinstance(properties, Mapping):
        said.append(f"settings {', '.join(map(clean, map(str, properties))) or 'none'}")
    else:
        said.append("settings not told, so all are taken for secrets")
    return "; ".join([f"label {known.label}", *said] if known.label else said)
