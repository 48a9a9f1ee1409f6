"""The COMMUNICATION_* settings: validated once at ``init_app``, kept in a frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError

from ..errors import SettingError
from .schema import reasons
from .settings_schema import Growth as Growth
from .settings_schema import RemoteAddress as RemoteAddress
from .settings_schema import SettingsSchema

PREFIX = "COMMUNICATION_"


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
