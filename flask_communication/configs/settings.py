"""The COMMUNICATION_* settings, read once at ``init_app`` into a frozen dataclass."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from ..errors import SettingError
from ..providers.net import hosts
from ..storage.models import CHANNELS

PREFIX = "COMMUNICATION_"
# Counters are 32 bits wide.
MOST = 2**31 - 1


@dataclass(frozen=True)
class RemoteAddress:
    """Where a provider that speaks the HTTP contract lives: an entry of COMMUNICATION_PROVIDERS."""

    url: str
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Growth:
    """How much more than usual may go to one prefix: COMMUNICATION_PREFIX_GROWTH."""

    factor: float
    # So many a day are never too much.
    floor: int = 100


@dataclass(frozen=True)
class Settings:
    """What the host decided; each field is the setting COMMUNICATION_<FIELD IN CAPITALS>."""

    url_prefix: str = "/communication"
    redis_url: str | None = field(default=None, repr=False)
    queue: str = "communication"
    concurrency: int = 20
    encryption_keys: tuple[str, ...] = field(default=(), repr=False)
    public_url: str | None = None
    providers: Mapping[str, RemoteAddress] = field(default_factory=dict)
    default_region: str | None = None
    default_sender: str | None = None
    only_to: tuple[str, ...] = ()
    redirect_to: str | None = None
    limit_per_recipient: tuple[tuple[int, int], ...] = ()
    limit_per_day: Mapping[str, int] = field(default_factory=dict)
    allowed_countries: tuple[str, ...] = ()
    prefix_growth: Growth | None = None
    embedded_worker: bool = True
    register_blueprint: bool = True
    database_url: str | None = field(default=None, repr=False)
    migrations: str = "own"
    allow_get_delete: bool = True
    inbox_every: float | None = 120.0
    allow_private_hosts: tuple[str, ...] = ()
    keep_bodies_days: float | None = None
    keep_messages_days: float | None = None

    @cached_property
    def private_hosts(self) -> tuple[str, ...]:
        """Hosts that may be called although they are not public.

        Those of COMMUNICATION_PROVIDERS may.
        """
        named = [urlsplit(one.url).netloc.rpartition("@")[2] for one in self.providers.values()]
        return (*self.allow_private_hosts, *named)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Read the settings of an ``app.config``.

        Raises :class:`SettingError` that names the setting, for a wrong value as for a name that
        does not exist (a misspelt COMMUNICATION_REDIS_URI would silently mean "no Redis").
        """
        given = {name: config[name] for name in config if name.startswith(PREFIX)}
        _refuse_strangers(given)
        values = {
            name.removeprefix(PREFIX).lower(): _READERS[name.removeprefix(PREFIX).lower()](
                name, raw
            )
            for name, raw in given.items()
        }
        return cls(**values)._consistent()

    def _consistent(self) -> Settings:
        texts, rows = self.keep_bodies_days, self.keep_messages_days
        if texts is not None and rows is not None and texts > rows:
            raise SettingError(
                "COMMUNICATION_KEEP_BODIES_DAYS must not be more than "
                "COMMUNICATION_KEEP_MESSAGES_DAYS"
            )
        return self


def _refuse_strangers(given: Mapping[str, Any]) -> None:
    known = [PREFIX + one.name.upper() for one in fields(Settings)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingError(f"{name} is not a setting of Flask-Communication{hint}")


def _wrong(name: str, needs: str) -> SettingError:
    # The value itself is not repeated: it may be a key or a password.
    return SettingError(f"{name} must be {needs}")


def _text(name: str, raw: Any) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise _wrong(name, "a non-empty string")
    return raw.strip()


def _maybe(read: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, raw: None if raw is None else read(name, raw)


def _flag(name: str, raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise _wrong(name, "True or False")
    return raw


def _prefix(name: str, raw: Any) -> str:
    if raw in ("", "/"):
        return ""
    text = _text(name, raw)
    if not text.startswith("/") or text.endswith("/"):
        raise _wrong(
            name, 'a path that begins, and does not end, with "/", such as "/communication"'
        )
    return text


def _concurrency(name: str, raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 1 <= raw <= 1000:
        raise _wrong(name, "a whole number from 1 to 1000")
    return raw


def _url(name: str, raw: Any, schemes: tuple[str, ...] = ("http", "https")) -> str:
    text = _text(name, raw)
    parts = urlsplit(text)
    if parts.scheme not in schemes or not (parts.netloc or parts.scheme == "unix"):
        raise _wrong(name, "an address that begins with " + " or ".join(f"{s}://" for s in schemes))
    return text.rstrip("/")


def _redis(name: str, raw: Any) -> str:
    return _url(name, raw, ("redis", "rediss", "unix"))


def _texts(name: str, raw: Any) -> tuple[str, ...]:
    if isinstance(raw, str | bytes) or not isinstance(raw, list | tuple | set | frozenset):
        raise _wrong(name, "a list of strings")
    return tuple(_text(name, one) for one in raw)


def _hosts(name: str, raw: Any) -> tuple[str, ...]:
    entries = _texts(name, raw)
    for entry in entries:
        try:
            host, _ = hosts.split(entry)
            is_network = "/" not in host or bool(ip_network(host))
        except ValueError:
            is_network = False
        if not is_network or not host or re.search(r"[\s@]", entry):
            raise _wrong(name, 'a list such as ["mail.internal:587", "10.0.0.5", "192.168.0.0/16"]')
    return entries


def _keys(name: str, raw: Any) -> tuple[str, ...]:
    from cryptography.fernet import Fernet

    keys = _texts(name, raw)
    for key in keys:
        try:
            Fernet(key)
        except ValueError:
            raise _wrong(
                name, "a list of Fernet keys; make one with: flask communication generate-key"
            ) from None
    return keys


def _providers(name: str, raw: Any) -> dict[str, RemoteAddress]:
    if not isinstance(raw, Mapping):
        raise _wrong(name, 'a mapping such as {"pkg": {"url": "https://…", "secret": "…"}}')
    return {pkg: _address(f"{name}[{pkg!r}]", one) for pkg, one in raw.items()}


def _address(name: str, raw: Any) -> RemoteAddress:
    if isinstance(raw, str):
        raw = {"url": raw}
    if not isinstance(raw, Mapping) or "url" not in raw or set(raw) - {"url", "secret"}:
        raise _wrong(name, 'a mapping with "url" and, optionally, "secret"')
    secret = raw.get("secret")
    return RemoteAddress(
        _url(f"{name}['url']", raw["url"]),
        None if secret is None else _text(f"{name}['secret']", secret),
    )


def _region(name: str, raw: Any) -> str:
    text = _text(name, raw).upper()
    if not (len(text) == 2 and text.isascii() and text.isalpha()):
        raise _wrong(name, 'a two-letter country code (ISO 3166), such as "IN"')
    _need_phonenumbers(name)
    return text


def _need_phonenumbers(name: str) -> None:
    try:
        import phonenumbers  # noqa: F401
    except ImportError:
        raise SettingError(
            f"{name} needs the phonenumbers library; pip install flask-communication[phone]"
        ) from None


def _countries(name: str, raw: Any) -> tuple[str, ...]:
    return tuple(_country(name, one) for one in _texts(name, raw))


def _country(name: str, text: str) -> str:
    if re.fullmatch(r"\+[1-9][0-9]{0,13}", text):
        return text
    country = text.upper()
    if not re.fullmatch("[A-Z]{2}", country):
        raise _wrong(
            name, 'a list of country codes such as "IN" and calling prefixes such as "+91"'
        )
    _need_phonenumbers(name)
    import phonenumbers

    if country not in phonenumbers.SUPPORTED_REGIONS:
        raise SettingError(f"{name}: {country} is no country that has telephone numbers")
    return country


def _is_count(raw: Any) -> bool:
    return isinstance(raw, int) and not isinstance(raw, bool) and 1 <= raw <= MOST


def _pairs(name: str, raw: Any) -> tuple[tuple[int, int], ...]:
    needs = (
        "a list of (count, seconds) pairs of whole numbers from 1, such as [(5, 600), (20, 86400)]"
    )
    if not isinstance(raw, list | tuple):
        raise _wrong(name, needs)
    for pair in raw:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(map(_is_count, pair)):
            raise _wrong(name, needs)
    if len({seconds for _, seconds in raw}) < len(raw):
        raise _wrong(name, f"{needs}, each with other seconds")
    return tuple((count, seconds) for count, seconds in raw)


def _per_day(name: str, raw: Any) -> dict[str, int]:
    given = dict.fromkeys(CHANNELS, raw) if _is_count(raw) else raw
    if (
        not isinstance(given, Mapping)
        or set(given) - set(CHANNELS)
        or not all(map(_is_count, given.values()))
    ):
        raise _wrong(name, 'a whole number from 1, or one for each channel such as {"sms": 1000}')
    return dict(given)


def _growth(name: str, raw: Any) -> Growth:
    factor, floor = raw if isinstance(raw, list | tuple) and len(raw) == 2 else (raw, Growth.floor)
    is_factor = (
        isinstance(factor, int | float) and not isinstance(factor, bool) and 1 <= factor <= MOST
    )
    if not is_factor or not _is_count(floor):
        raise _wrong(
            name, "a number from 1 such as 10, or (10, 500): with how many a day are never too much"
        )
    return Growth(float(factor), floor)


def _days(name: str, raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 < raw <= 36_500:
        raise _wrong(name, "None, or a number of days above 0")
    return float(raw)


def _seconds(name: str, raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 1 <= raw <= 86_400:
        raise _wrong(name, "None, or a number of seconds from 1 to 86400")
    return float(raw)


def _migrations(name: str, raw: Any) -> str:
    if raw not in ("own", "host"):
        raise _wrong(name, '"own" or "host"')
    return str(raw)


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "url_prefix": _prefix,
    "redis_url": _maybe(_redis),
    "queue": _text,
    "concurrency": _concurrency,
    "encryption_keys": _keys,
    "public_url": _maybe(_url),
    "providers": _providers,
    "default_region": _maybe(_region),
    "default_sender": _maybe(_text),
    "only_to": _texts,
    "redirect_to": _maybe(_text),
    "limit_per_recipient": lambda name, raw: () if raw is None else _pairs(name, raw),
    "limit_per_day": lambda name, raw: {} if raw is None else _per_day(name, raw),
    "allowed_countries": lambda name, raw: () if raw is None else _countries(name, raw),
    "prefix_growth": _maybe(_growth),
    "embedded_worker": _flag,
    "register_blueprint": _flag,
    "database_url": _maybe(_text),
    "migrations": _migrations,
    "allow_get_delete": _flag,
    "inbox_every": _maybe(_seconds),
    "allow_private_hosts": _hosts,
    "keep_bodies_days": _maybe(_days),
    "keep_messages_days": _maybe(_days),
}
