"""The manifest of the HTTP contract: what ``GET <root>/`` says a provider can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import ValidationError, fields, validate

from ...formats.text import mask
from ..base import Capabilities, NotSent, OutcomeUnknown
from .envelope import Lenient
from .sms import MOST_MESSAGES

# Features of a provider. Stateless: retries and reports need the configuration in their bodies.
STATELESS = "stateless"
BULK = "bulk"
INBOX = "inbox"

_TYPES = ("sms", "email")
_FEATURES = frozenset({BULK, INBOX})
_LONGEST_WINDOW = 30 * 86400
_WITHOUT = "without a manifest: it is asked for SMS, with the bodies of the contract and no more"


def _seconds(default: float) -> fields.Float:
    return fields.Float(load_default=default, validate=validate.Range(min=0, max=_LONGEST_WINDOW))


class Manifest(Lenient):
    """``GET <root>/``: the name of a provider and its :class:`.Capabilities`."""

    name = fields.String(required=True, validate=validate.Length(min=1, max=255))
    types = fields.List(fields.String(), required=True)
    label = fields.String(load_default=Capabilities.label)
    features = fields.List(fields.String(), load_default=list)
    config_schema = fields.Dict(load_default=None, allow_none=True)
    idempotency_window = _seconds(Capabilities.idempotency_window)
    report_after = _seconds(Capabilities.report_after)
    bulk_limit = fields.Integer(
        load_default=Capabilities.bulk_limit, validate=validate.Range(min=1, max=MOST_MESSAGES)
    )


_MANIFEST = Manifest()


def write(name: str, can: Capabilities) -> dict[str, Any]:
    """Return the manifest of a served provider: its capabilities, as far as they are served."""
    return {
        **{field: value for field, value in vars(can).items() if field != "known"},
        "name": name,
        "label": can.label or name,
        "types": [one for one in can.types if one in _TYPES],
        "features": sorted({STATELESS} | (can.features & _FEATURES)),
        "bulk_limit": min(can.bulk_limit, MOST_MESSAGES),
    }


def read(status: int, document: object) -> Capabilities:
    """Read the answer to ``GET <root>/``; anything but a good manifest means the defaults.

    Raises :class:`OutcomeUnknown` where the provider should be asked again.
    """
    if status == 429 or status >= 500:
        raise OutcomeUnknown(f"it answered {status}", http_status=status)
    if status != 200 or not isinstance(document, dict):
        return Capabilities()
    try:
        return _capabilities(_MANIFEST.load(document))
    except ValidationError:
        return Capabilities()


def _capabilities(given: Mapping[str, Any]) -> Capabilities:
    told = {field: value for field, value in given.items() if field != "name"}
    told["label"] = mask(told["label"])
    told["types"] = tuple(told["types"])
    told["features"] = frozenset(told["features"])
    return Capabilities(**told)


def describe(status: int, document: object) -> str:
    """Describe the answer to ``GET <root>/`` to a person, in one line.

    Raises :class:`NotSent` if it is wrong.
    """
    if status in (404, 405):
        return f"it answers {status}, {_WITHOUT}"
    if status != 200:
        raise NotSent(f"it answers GET with {status}; it should be 200 with a manifest, or 404")
    if not isinstance(document, dict):
        return f"it answers with no JSON object, {_WITHOUT}"
    try:
        given = _MANIFEST.load(document)
    except ValidationError as wrong:
        raise NotSent(f"its manifest is wrong and is ignored: {_faults(wrong)}") from None
    return f"it is {mask(given['name'])}; {_described(_capabilities(given))}"


def _faults(wrong: ValidationError) -> str:
    messages = wrong.messages if isinstance(wrong.messages, dict) else {"_": wrong.messages}
    return mask("; ".join(f"{field}: {why}" for field, why in messages.items()))


def _described(can: Capabilities) -> str:
    said = [f"label {can.label}"] if can.label else []
    said.append(f"types {_listed(can.types)}")
    said.append(f"features {_listed(sorted(can.features))}")
    if can.idempotency_window:
        said.append(f"a repeated key is ignored for {can.idempotency_window:g} s")
    properties = (can.config_schema or {}).get("properties")
    if isinstance(properties, Mapping):
        said.append(f"settings {_listed(properties)}")
    else:
        said.append("settings not declared, so all count as secrets")
    return "; ".join(said)


def _listed(names: Iterable[object]) -> str:
    return ", ".join(mask(str(one)) for one in names) or "none"
