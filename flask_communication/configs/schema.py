"""The fields of a configuration, validated once for REST, the command line and Python."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from marshmallow import (
    RAISE,
    Schema,
    ValidationError,
    fields,
    post_load,
    validate,
    validates,
    validates_schema,
)

from ..errors import InvalidConfig
from ..storage.models import CHANNELS

MASK = "********"
MAX_CONFIG = 20_000
# Messages a second: the slowest rate that makes sense is one message a day.
MIN_RATE, MAX_RATE = 1 / 86_400, 1e6
_LOOKS_LIKE_A_MASK = re.compile(r"[*•●]{3,}")
_URL_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_TEXT_OR_NUMBER = {"type": ["string", "integer"]}
_FALLBACK = "a list of keys of configurations"
_WEIGHT = "a whole number from 0 to 1000"
_RATE = "a number from 1/86400 (one a day) to a million, or null"


@dataclass(frozen=True)
class ConfigFields:
    """What a person enters of a configuration; ``is_default`` is None where nothing was entered."""

    type: str
    provider: str = ""
    provider_pkg_name: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    key: str | None = None
    is_default: bool | None = None
    enabled: bool = True
    fallback: Sequence[str] = ()
    weight: int = 100
    rate_per_second: float | None = None

    @property
    def package(self) -> str:
        """The name that leads to the provider."""
        return self.provider_pkg_name or self.provider

    def columns(self) -> dict[str, Any]:
        """Return the columns of the table, without the secrets and the default."""
        return {
            "type": self.type,
            "provider": self.provider,
            "provider_pkg_name": self.provider_pkg_name,
            "key": self.key,
            "enabled": self.enabled,
            "fallback": list(self.fallback),
            "weight": self.weight,
            "rate_per_second": self.rate_per_second,
        }


@dataclass(frozen=True)
class ConfigChanges:
    """What a person changes of a configuration; the fields that are left out stay."""

    id: int
    version: str | None
    fields: Mapping[str, Any] = field(repr=False)

    def applied_to(self, known: ConfigFields) -> ConfigFields:
        """Return the configuration with these changes; its ``config`` has the changes only."""
        return replace(known, **{"config": {}, **self.fields})


def read_new(given: Mapping[str, Any], channels: Sequence[str] = CHANNELS) -> ConfigFields:
    """Validate the fields of a new configuration of one of these channels.

    Raises :class:`InvalidConfig`.
    """
    new = ConfigFields(**_load(ConfigCreate(channels), given))
    refuse_masks(new.config)
    return new


def read_changes(
    config_id: object, given: Mapping[str, Any], channels: Sequence[str] = CHANNELS
) -> ConfigChanges:
    """Validate the changed fields of a configuration; raise :class:`InvalidConfig`."""
    loaded = _load(ConfigUpdate(channels), {**given, "id": config_id})
    return ConfigChanges(loaded.pop("id"), loaded.pop("version", None), loaded)


def read_id(given: object) -> int:
    """Return the id of a configuration, a number or its digits; raise :class:`InvalidConfig`."""
    loaded: int = _load(ConfigId(), {"id": given})["id"]
    return loaded


def refuse_masks(config: Mapping[str, Any]) -> None:
    """Raise :class:`InvalidConfig` for settings that look like the mask of a secret."""
    masked = [n for n, v in config.items() if isinstance(v, str) and _LOOKS_LIKE_A_MASK.match(v)]
    if masked:
        raise InvalidConfig(
            {f"config.{name}": ["is a mask; enter the secret itself"] for name in masked}
        )


def _load(schema: Schema, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(given)
    except ValidationError as wrong:
        found = {str(name): reasons(why) for name, why in wrong.messages_dict.items()}
        raise InvalidConfig(found) from None
    return loaded


def reasons(why: Any) -> list[str]:
    """Return the reasons of a field, also where they stand at the places of a list."""
    if isinstance(why, dict):
        return list(dict.fromkeys(one for inner in why.values() for one in reasons(inner)))
    return list(why)


def must(needs: str) -> dict[str, Any]:
    """Return the messages of a field: one sentence for whatever is wrong with it."""
    kinds = ("required", "null", "invalid", "invalid_utf8", "too_large", "special")
    # A field formats its messages, so a brace is doubled.
    sentence = f"must be {needs}".replace("{", "{{").replace("}", "}}")
    return dict.fromkeys(kinds, sentence)


def _line(shortest: int, longest: int, needs: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if not (shortest <= len(text) <= longest and text.isprintable()):
            raise ValidationError(f"must be {needs}")

    return check


def _text(shortest: int, longest: int, **options: Any) -> fields.String:
    size = f"{shortest} to {longest}" if shortest else f"at most {longest}"
    needs = f"a line of {size} characters"
    check = _line(shortest, longest, needs)
    return fields.String(validate=check, error_messages=must(needs), **options)


def _flag() -> fields.Boolean:
    return fields.Boolean(truthy={True}, falsy={False}, error_messages=must("true or false"))


class _Id(fields.Raw):
    """The id of a configuration, as a number or its digits."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        text = str(value)
        if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 10):
            raise self.make_error("invalid")
        return int(text)


def _text_or_number(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValidationError("must be a number")


def _id() -> _Id:
    needs = must("the number of a configuration")
    return _Id(required=True, metadata=_TEXT_OR_NUMBER, error_messages=needs)


class ConfigId(Schema):
    """Which configuration is meant."""

    class Meta:
        unknown = RAISE

    id = _id()


def _type(**options: Any) -> fields.String:
    needs = f"one of {', '.join(CHANNELS)}"
    return fields.String(metadata={"enum": list(CHANNELS)}, error_messages=must(needs), **options)


class _Fields(Schema):
    class Meta:
        unknown = RAISE

    error_messages = {"unknown": "is not a field of a configuration"}

    def __init__(self, channels: Sequence[str] = CHANNELS) -> None:
        super().__init__()
        self._channels = channels

    key = _text(1, 100, allow_none=True)
    is_default = _flag()
    enabled = _flag()
    fallback = fields.List(
        fields.String(validate=_line(1, 100, _FALLBACK), error_messages=must(_FALLBACK)),
        error_messages=must(_FALLBACK),
    )
    weight = fields.Integer(
        strict=True,
        validate=validate.Range(0, 1000, error=f"must be {_WEIGHT}"),
        error_messages=must(_WEIGHT),
    )
    rate_per_second = fields.Float(
        allow_none=True,
        validate=validate.Range(MIN_RATE, MAX_RATE, error=f"must be {_RATE}"),
        error_messages=must(_RATE),
    )

    @validates("type")
    def _check_type(self, value: str, **kwargs: Any) -> None:
        if value not in self._channels:
            raise ValidationError(f"must be one of {', '.join(self._channels)}")

    @validates_schema(skip_on_field_errors=False)
    def _check_settings(self, data: Mapping[str, Any], **kwargs: Any) -> None:
        wrong = _wrong_settings(data.get("config", {}))
        if wrong:
            raise ValidationError(wrong)

    @post_load
    def _name_nothing(self, data: dict[str, Any], **kwargs: object) -> dict[str, Any]:
        empty = [name for name in ("provider", "provider_pkg_name") if data.get(name, "") is None]
        return data | dict.fromkeys(empty, "")


class ConfigCreate(_Fields):
    """A configuration: which provider, with which settings."""

    type = _type(required=True)
    provider = _text(0, 100, load_default="", allow_none=True)
    provider_pkg_name = _text(0, 200, load_default="", allow_none=True)
    config = fields.Dict(load_default=dict, error_messages=must("an object"))


class ConfigUpdate(_Fields):
    """A change of a configuration; what is left out stays."""

    id = _id()
    version = fields.Raw(
        validate=_text_or_number, metadata=_TEXT_OR_NUMBER, error_messages=must("a number")
    )
    type = _type()
    provider = _text(0, 100, allow_none=True)
    provider_pkg_name = _text(0, 200, allow_none=True)
    config = fields.Dict(error_messages=must("an object"))


def _wrong_settings(config: Mapping[str, Any]) -> dict[str, list[str]]:
    wrong = {f"config.{name}": reason for name, value in config.items() for reason in _flaw(value)}
    text = _as_json(config)
    if text is None:
        return wrong or {"config": ["must be JSON"]}
    if len(text) > MAX_CONFIG or "\\u0000" in text or not _is_unicode(config):
        wrong["config"] = [f"must be at most {MAX_CONFIG} characters of valid Unicode, without NUL"]
    return wrong


def _flaw(value: object) -> Iterator[list[str]]:
    if not isinstance(value, str | int | float | bool | None):
        yield ["must be a line of text, a number, true, false or null"]
    elif isinstance(value, str) and _URL_WITH_PASSWORD.search(value):
        yield ["has a password in an address; store it in a setting of its own"]


def _as_json(config: Mapping[str, Any]) -> str | None:
    try:
        return json.dumps(dict(config), allow_nan=False)
    except (TypeError, ValueError):
        return None


def _is_unicode(config: Mapping[str, Any]) -> bool:
    try:
        json.dumps(dict(config), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
