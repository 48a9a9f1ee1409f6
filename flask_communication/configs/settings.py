"""The COMMUNICATION_* settings: validated once at ``init_app``, kept in a frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, fields, post_load, validate, validates_schema

from ..errors import SettingError
from ..formats import addresses
from ..providers.net import hosts
from ..storage.models import CHANNELS
from .schema import must, reasons

PREFIX = "COMMUNICATION_"
# Counters are 32 bits wide.
MAX_COUNT = 2**31 - 1
# What a setting must be, as the error says it.
_PREFIX = 'a path that begins, and does not end, with "/", such as "/communication"'
_CONCURRENCY = "a whole number from 1 to 1000"
_TEXTS = "a list of strings"
_KEYS = "a list of Fernet keys; make one with: flask communication generate-key"
_HOSTS = 'a list such as ["mail.internal:587", "10.0.0.5", "192.168.0.0/16"]'
_PROVIDERS = 'a mapping such as {"pkg": {"url": "https://…", "secret": "…"}}'
_REMOTE = 'a mapping with "url" and, optionally, "secret"'
_REGION = 'a two-letter country code (ISO 3166), such as "IN"'
_COUNTRIES = 'a list of country codes such as "IN" and calling prefixes such as "+91"'
_PAIRS = "a list of (count, seconds) pairs of whole numbers from 1, such as [(5, 600), (20, 86400)]"
_PER_DAY = 'a whole number from 1, or one for each channel such as {"sms": 1000}'
_GROWTH = "a number from 1 such as 10, or (10, 500): it never applies below 500 a day"
_MIGRATIONS = '"own" or "host"'


@dataclass(frozen=True)
class RemoteAddress:
    """Where a provider that speaks the HTTP contract lives: an entry of COMMUNICATION_PROVIDERS."""

    url: str
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Growth:
    """How much more than usual may go to one prefix of numbers: COMMUNICATION_PREFIX_GROWTH."""

    factor: float
    #: The limit never applies below this many a day.
    floor: int = 100


def _wrong(needs: str) -> ValidationError:
    return ValidationError(f"must be {needs}")


class _Text(fields.String):
    """A text that is not empty, without the white space around it."""

    default_error_messages = must("a non-empty string")

    def _deserialize(self, value: object, attr: str | None, data: object, **kwargs: object) -> str:
        text = _text(value)
        if text is None:
            raise self.make_error("invalid")
        return text


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


class _Address(_Text):
    """A URL of some schemes, without a slash at its end."""

    def __init__(self, *schemes: str, **options: Any) -> None:
        needs = "an address that begins with " + " or ".join(f"{one}://" for one in schemes)
        super().__init__(error_messages=must(needs), **options)
        self._schemes = schemes

    def _deserialize(self, value: object, attr: str | None, data: object, **kwargs: object) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not _is_address(text, self._schemes):
            raise self.make_error("invalid")
        return text.rstrip("/")


def _is_address(text: str, schemes: Sequence[str]) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.netloc or parts.scheme == "unix")


class _Number(fields.Float):
    """A number, and not a text that looks like one."""

    def _deserialize(self, value: object, attr: str | None, data: object, **kwargs: object) -> Any:
        if isinstance(value, str | bytes):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


def _number(needs: str, bounds: validate.Range) -> _Number:
    bounds.error = f"must be {needs}"
    return _Number(allow_none=True, validate=bounds, error_messages=must(needs))


def _days() -> _Number:
    bounds = validate.Range(0, 36_500, min_inclusive=False)
    return _number("None, or a number of days above 0", bounds)


def _flag() -> fields.Boolean:
    return fields.Boolean(truthy={True}, falsy={False}, error_messages=must("True or False"))


def _prefix(value: object) -> str:
    if value in ("", "/"):
        return ""
    text = _text(value)
    if text is None or not text.startswith("/") or text.endswith("/"):
        raise _wrong(_PREFIX)
    return text


def _fernet(key: str) -> None:
    from cryptography.fernet import Fernet

    try:
        Fernet(key)
    except ValueError:
        raise _wrong(_KEYS) from None


def _host(entry: str) -> None:
    try:
        host, _ = hosts.split(entry)
        is_network = "/" not in host or bool(ip_network(host))
    except ValueError:
        is_network = False
    if not is_network or not host or re.search(r"[\s@]", entry):
        raise _wrong(_HOSTS)


class _Remote(Schema):
    error_messages = {"unknown": "is neither url nor secret", "type": f"must be {_REMOTE}"}

    url = _Address("http", "https", required=True)
    secret = _Text(allow_none=True)


def _providers(value: object) -> dict[str, RemoteAddress]:
    if not isinstance(value, Mapping):
        raise _wrong(_PROVIDERS)
    return {name: _remote(name, one) for name, one in value.items()}


def _remote(name: str, value: Any) -> RemoteAddress:
    try:
        return RemoteAddress(**_Remote().load({"url": value} if isinstance(value, str) else value))
    except ValidationError as wrong:
        found = [
            f"[{name!r}]{'' if field == '_schema' else f'[{field!r}]'} {reason}"
            for field, why in wrong.messages_dict.items()
            for reason in reasons(why)
        ]
        raise ValidationError(found) from None


def _region(value: object) -> str:
    text = (_text(value) or "").upper()
    if not (len(text) == 2 and text.isascii() and text.isalpha()):
        raise _wrong(_REGION)
    _need_phonenumbers()
    return text


def _need_phonenumbers() -> None:
    try:
        import phonenumbers  # noqa: F401
    except ImportError:
        raise ValidationError(
            "needs the phonenumbers library; pip install flask-communication[phone]"
        ) from None


def _country(value: object) -> str:
    text = _text(value) or ""
    if re.fullmatch(r"\+[1-9][0-9]{0,13}", text):
        return text
    country = text.upper()
    if not re.fullmatch("[A-Z]{2}", country):
        raise _wrong(_COUNTRIES)
    _need_phonenumbers()
    import phonenumbers

    if country not in phonenumbers.SUPPORTED_REGIONS:
        raise ValidationError(f"has {country}, which is no country with telephone numbers")
    return country


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_COUNT


def _pairs(value: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(_PAIRS)
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(map(_is_count, pair)):
            raise _wrong(_PAIRS)
    if len({seconds for _, seconds in value}) < len(value):
        raise _wrong(f"{_PAIRS}, each with other seconds")
    return tuple((count, seconds) for count, seconds in value)


def _per_day(value: Any) -> dict[str, int]:
    given = dict.fromkeys(CHANNELS, value) if _is_count(value) else value
    is_usable = isinstance(given, Mapping) and not set(given) - set(CHANNELS)
    if not is_usable or not all(map(_is_count, given.values())):
        raise _wrong(_PER_DAY)
    return dict(given)


def _growth(value: Any) -> Growth:
    pair = value if isinstance(value, list | tuple) and len(value) == 2 else (value, Growth.floor)
    factor, floor = pair
    is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if not is_number or not 1 <= factor <= MAX_COUNT or not _is_count(floor):
        raise _wrong(_GROWTH)
    return Growth(float(factor), floor)


class SettingsSchema(Schema):
    """The settings as ``app.config`` has them; each reason follows the setting's name."""

    url_prefix = fields.Function(deserialize=_prefix, error_messages=must(_PREFIX))
    redis_url = _Address("redis", "rediss", "unix", allow_none=True)
    queue = _Text()
    concurrency = fields.Integer(
        strict=True,
        validate=validate.Range(1, 1000, error=f"must be {_CONCURRENCY}"),
        error_messages=must(_CONCURRENCY),
    )
    encryption_keys = fields.List(
        _Text(validate=_fernet, error_messages=must(_KEYS)), error_messages=must(_KEYS)
    )
    public_url = _Address("http", "https", allow_none=True)
    providers = fields.Function(deserialize=_providers, error_messages=must(_PROVIDERS))
    default_region = fields.Function(deserialize=_region, allow_none=True)
    default_sender = _Text(allow_none=True)
    only_to = fields.List(_Text(error_messages=must(_TEXTS)), error_messages=must(_TEXTS))
    redirect_to = _Text(allow_none=True)
    limit_per_recipient = fields.Function(deserialize=_pairs, allow_none=True)
    limit_per_day = fields.Function(deserialize=_per_day, allow_none=True)
    allowed_countries = fields.List(
        fields.Function(deserialize=_country, error_messages=must(_COUNTRIES)),
        allow_none=True,
        error_messages=must(_COUNTRIES),
    )
    prefix_growth = fields.Function(deserialize=_growth, allow_none=True)
    embedded_worker = _flag()
    register_blueprint = _flag()
    database_url = _Text(allow_none=True)
    migrations = fields.String(
        validate=validate.OneOf(("own", "host"), error=f"must be {_MIGRATIONS}"),
        error_messages=must(_MIGRATIONS),
    )
    allow_get_delete = _flag()
    inbox_every = _number("None, or a number of seconds from 1 to 86400", validate.Range(1, 86_400))
    allow_private_hosts = fields.List(
        _Text(validate=_host, error_messages=must(_HOSTS)), error_messages=must(_HOSTS)
    )
    keep_bodies_days = _days()
    keep_messages_days = _days()

    @validates_schema
    def _check_retention(self, data: Mapping[str, Any], **kwargs: object) -> None:
        texts, rows = data.get("keep_bodies_days"), data.get("keep_messages_days")
        if texts is not None and rows is not None and texts > rows:
            reason = "must not be more than COMMUNICATION_KEEP_MESSAGES_DAYS"
            raise ValidationError({"keep_bodies_days": [reason]})

    @post_load
    def _normalise(self, data: Mapping[str, Any], **kwargs: object) -> dict[str, Any]:
        values = {name: tuple(one) if isinstance(one, list) else one for name, one in data.items()}
        if "only_to" in values:
            values["only_to"] = tuple(map(addresses.canonical, values["only_to"]))
        # None means "no limit", which these settings say by being empty.
        limits = ("limit_per_recipient", "limit_per_day", "allowed_countries")
        return {name: one for name, one in values.items() if one is not None or name not in limits}


@dataclass(frozen=True)
class Settings:
    """What the host decided; each field is the setting COMMUNICATION_<FIELD IN CAPITALS>."""

    #: The path under which pages and REST calls are mounted.
    url_prefix: str = "/communication"
    #: The Redis that wakes workers; without one, a thread of the web process sends.
    redis_url: str | None = field(default=None, repr=False)
    #: The RQ queue that wakes workers.
    queue: str = "communication"
    #: How many requests to providers one worker makes at once.
    concurrency: int = 20
    #: Fernet keys: the first encrypts, all decrypt.
    encryption_keys: tuple[str, ...] = field(default=(), repr=False)
    #: The address under which the internet reaches this application, for webhooks.
    public_url: str | None = None
    #: Providers that speak the HTTP contract, by the name that configurations use.
    providers: Mapping[str, RemoteAddress] = field(default_factory=dict)
    #: The country (ISO 3166) of numbers without "+".
    default_region: str | None = None
    #: The sender of messages that name none.
    default_sender: str | None = None
    #: The only recipients that get messages, in canonical form; empty: everybody may.
    only_to: tuple[str, ...] = ()
    #: The one recipient that gets every message instead of the real one.
    redirect_to: str | None = None
    #: Pairs (count, seconds): how many messages one recipient may get in how long.
    limit_per_recipient: tuple[tuple[int, int], ...] = ()
    #: How many messages of a channel may be sent in a day (UTC).
    limit_per_day: Mapping[str, int] = field(default_factory=dict)
    #: The countries and calling prefixes that SMS may be sent to; empty: all.
    allowed_countries: tuple[str, ...] = ()
    #: How much more than its daily mean a prefix of numbers may get.
    prefix_growth: Growth | None = None
    #: Whether a thread of the web process sends when there is no Redis.
    embedded_worker: bool = True
    #: Whether ``init_app`` mounts the blueprint.
    register_blueprint: bool = True
    #: A database of our own, for a host without Flask-SQLAlchemy.
    database_url: str | None = field(default=None, repr=False)
    #: "own": our tables have a history of their own; "host": they join the host's.
    migrations: str = "own"
    #: Whether ``GET config/delete/`` deletes, for callers without cookies.
    allow_get_delete: bool = True
    #: Seconds until workers read a mailbox again; None: they never do.
    inbox_every: float | None = 120.0
    #: Hosts and networks that providers may connect to although they are not public.
    allow_private_hosts: tuple[str, ...] = ()
    #: Days after which the texts and files of ended messages are removed.
    keep_bodies_days: float | None = None
    #: Days after which ended messages are deleted.
    keep_messages_days: float | None = None

    @cached_property
    def private_hosts(self) -> tuple[str, ...]:
        """Hosts that providers may connect to although they are not public.

        The hosts of COMMUNICATION_PROVIDERS are among them.
        """
        named = [urlsplit(one.url).netloc.rpartition("@")[2] for one in self.providers.values()]
        return (*self.allow_private_hosts, *named)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Validate the settings of an ``app.config``.

        Raises :class:`SettingError` that names every wrong setting, and every setting that does
        not exist: a misspelt COMMUNICATION_REDIS_URI would silently mean "no Redis".
        """
        given = {name: config[name] for name in config if name.startswith(PREFIX)}
        _refuse_unknown(given)
        try:
            loaded = SettingsSchema().load(
                {name.removeprefix(PREFIX).lower(): value for name, value in given.items()}
            )
        except ValidationError as wrong:
            raise SettingError(_explained(wrong.messages_dict)) from None
        return cls(**loaded)


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    known = [PREFIX + one.name.upper() for one in dataclasses.fields(Settings)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingError(f"{name} is not a setting of Flask-Communication{hint}")


def _explained(messages: Mapping[str, Any]) -> str:
    # The values are not repeated: one may be a key or a password.
    return "; ".join(
        f"{PREFIX}{name.upper()}{'' if reason.startswith('[') else ' '}{reason}"
        for name, why in messages.items()
        for reason in reasons(why)
    )
