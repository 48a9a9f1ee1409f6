"""Routes: which configuration sends a message, and how its provider is reached."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sqlalchemy import Row, TextClause, bindparam, text
from sqlalchemy.engine import Connection

from ..errors import CommunicationError, ConfigNotFound
from ..providers.base import Capabilities, Provider
from ..providers.net import hosts
from ..storage.dialect import dialect_of
from . import breaker
from .breaker import Breaker
from .state import State
from .store import values

log = logging.getLogger(__name__)

# What a configuration can do whose provider is not there.
_NOTHING = Capabilities()


@dataclass(frozen=True)
class Route:
    """One configuration, ready to send; ``blocked`` says why nothing may be sent by it.

    A blocked one may still have a provider, which is asked for delivery reports.
    """

    config_id: int
    provider: Provider | None = None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    blocked: str | None = None
    key: str | None = None
    version: int = 0
    weight: int = 100
    rate: float | None = None
    fallback: tuple[int, ...] = ()
    breaker: Breaker = field(default=Breaker(0), repr=False)
    #: Hosts that the provider may connect to although they are not public.
    private: tuple[str, ...] = ()

    def guarded(self) -> AbstractContextManager[None]:
        """Return a context in which requests of the provider reach only allowed hosts."""
        return hosts.guarded(self.private)

    @property
    def capabilities(self) -> Capabilities:
        """What the provider can do, as far as it is known; no request is made."""
        return self.provider.capabilities if self.provider else _NOTHING

    def learn(self) -> Capabilities:
        """Let the provider learn what it can do, by a request if need be; never raises."""
        if self.provider is not None:
            try:
                with self.guarded():
                    self.provider.learn()
            except Exception:
                log.exception("provider %s failed to learn what it can do", self.provider.name)
        return self.capabilities

    @property
    def window(self) -> float:
        """For how many seconds the provider ignores a repeated key; 0 if it does not."""
        return float(self.capabilities.idempotency_window)

    @property
    def report_after(self) -> float:
        """Seconds until the first delivery report makes sense."""
        return float(self.capabilities.report_after)

    @property
    def batch(self) -> int:
        """How many messages one request may carry."""
        can = self.capabilities
        return max(1, can.bulk_limit) if "bulk" in can.features else 1

    @property
    def name(self) -> str:
        """The configuration's name for people."""
        return f"configuration {self.config_id}" + (f" ({self.key})" if self.key else "")

    @property
    def trouble(self) -> str | None:
        """Why nothing may be sent by it now, or None."""
        if self.blocked is not None:
            return self.blocked
        return f"{self.name} is {self.breaker}" if self.breaker.is_paused else None


def choose(connection: Connection, channel: str, key: str | int | None) -> int:
    """Return the id of the enabled configuration that ``key`` names; see :func:`find_config`.

    Raises :class:`ConfigNotFound`, which says what to do.
    """
    found = find_config(connection, channel, key)
    if found is None or not found.enabled:
        raise ConfigNotFound(_missing(channel, None if key is None else str(key)))
    return found.id


class Found(NamedTuple):
    """A configuration that a key leads to."""

    id: int
    enabled: bool


def find_config(connection: Connection, channel: str, key: str | int | None) -> Found | None:
    """Return the configuration that ``key`` names, also a disabled one; None if there is none.

    ``key`` is a key, an id, or None for the default configuration. A key made of digits wins over
    the id that it looks like, and an enabled configuration over a disabled one.
    """
    if key is None:
        found = connection.execute(_DEFAULT, {"type": channel}).first()
    else:
        found = connection.execute(_NAMED, {"type": channel, "key": str(key)}).first()
    return None if found is None else Found(found.id, bool(found.enabled))


_OF_TYPE = "SELECT id, enabled FROM communication_config WHERE type = :type AND deleted_at IS NULL"
_DEFAULT = text(f"{_OF_TYPE} AND is_default")
_NAMED = text(
    f"{_OF_TYPE} AND (key = :key OR CAST(id AS varchar(20)) = :key)"
    " ORDER BY enabled DESC, CASE WHEN key = :key THEN 0 ELSE 1 END LIMIT 1"
)


def _missing(channel: str, key: str | None) -> str:
    if key is None:
        return (
            f"no {channel} configuration is the default; add one with: "
            f"flask communication config add --type {channel} --provider-pkg-name simulator "
            "--default"
        )
    return (
        f"no enabled {channel} configuration has the key or id {key!r}; "
        "see: flask communication config list"
    )


class Routes:
    """The routes of one worker: read for each batch, decrypted again only after a change."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._opened: dict[int, Route] = {}

    def load(self, connection: Connection, ids: Iterable[int | None] = ()) -> dict[int, Route]:
        """Return the routes of all configurations in use, and of those with these ids."""
        wanted = sorted({one for one in ids if one is not None})
        pause = dialect_of(connection).since("k.until")
        rows = connection.execute(_configs(pause, bool(wanted)), {"ids": wanted})
        return _with_fallbacks(self._routes(connection, rows.all()))

    def _routes(
        self, connection: Connection, rows: Sequence[Row[Any]]
    ) -> dict[int, tuple[Row[Any], Route]]:
        stale = [row.id for row in rows if not self._is_fresh(row)]
        if stale:
            self._open(connection.execute(_SEALED, {"ids": stale}).all())
        return {row.id: (row, self._route(row)) for row in rows}

    def _is_fresh(self, row: Row[Any]) -> bool:
        known = self._opened.get(row.id)
        return known is not None and known.version == row.version and known.provider is not None

    def _open(self, rows: Iterable[Row[Any]]) -> None:
        for row in rows:
            route = Route(
                row.id,
                key=row.key,
                version=row.version,
                weight=row.weight,
                rate=row.rate_per_second,
                private=self._state.settings.private_hosts,
            )
            try:
                provider = self._state.registry.find(row.provider_pkg_name or row.provider)
                route = replace(route, provider=provider, config=values(self._state, row))
            except CommunicationError as wrong:
                route = replace(route, blocked=str(wrong))
            self._opened[row.id] = route

    def _route(self, row: Row[Any]) -> Route:
        known = self._opened[row.id]
        return replace(known, blocked=_closed(row) or known.blocked, breaker=Breaker.of(row))


def _with_fallbacks(found: Mapping[int, tuple[Row[Any], Route]]) -> dict[int, Route]:
    named = {
        (row.type, name): row.id
        for row, _ in found.values()
        for name in (str(row.id), row.key)
        if name
    }
    return {
        row.id: replace(route, fallback=_ids(row, named))
        if row.fallback not in (None, "[]", [])
        else route
        for row, route in found.values()
    }


def _ids(row: Row[Any], named: Mapping[tuple[str, str], int]) -> tuple[int, ...]:
    keys = json.loads(row.fallback) if isinstance(row.fallback, str) else row.fallback
    # An unknown name is skipped; `explain` and `config list` show it.
    ids = [named.get((row.type, key)) for key in keys]
    return tuple(dict.fromkeys(one for one in ids if one is not None and one != row.id))


def _closed(row: Row[Any]) -> str | None:
    if row.is_deleted:
        return f"configuration {row.id} was deleted; retry_send sends by the default one"
    return None if row.enabled else f"configuration {row.id} is disabled"


_SEALED = text(
    "SELECT id, key, version, weight, rate_per_second, provider, provider_pkg_name, sealed"
    " FROM communication_config WHERE id IN :ids"
).bindparams(bindparam("ids", expanding=True))


def _configs(pause: str, and_these: bool) -> TextClause:
    also = " OR c.id IN :ids" if and_these else ""
    found = text(
        "SELECT c.id, c.type, c.key, c.version, c.enabled, c.fallback,"
        f" c.deleted_at IS NOT NULL AS is_deleted, {breaker.COLUMNS}, 0 - {pause} AS seconds"
        " FROM communication_config AS c LEFT JOIN communication_circuit AS k ON k.config_id = c.id"
        f" WHERE c.deleted_at IS NULL{also}"
    )
    return found.bindparams(bindparam("ids", expanding=True)) if and_these else found


def in_order(home: Route, routes: Mapping[int, Route], uuid: str) -> list[Route]:
    """Return the routes that may send a message, in the order in which they are tried.

    The configuration that was asked for comes first, and then its fallbacks in their order. Where
    the weights say so, some messages begin with a fallback: the uuid decides, so a message always
    begins with the same one.
    """
    if not home.fallback:
        return [home]
    family = [home, *(routes[one] for one in home.fallback if one in routes)]
    first = _first(family, int(uuid[:8], 16) % 100)
    return [family[first], *family[:first], *family[first + 1 :]]


def _first(family: Sequence[Route], point: int) -> int:
    """Return the place of the route that has ``point`` (0 to 99) of the messages."""
    weights = [route.weight for route in family]
    total = sum(weights)
    # Weights are shares of 100; those that do not reach it are scaled up, what is above is cut off.
    scale = 100 / total if 0 < total < 100 else 1.0
    reached = 0.0
    for place, weight in enumerate(weights):
        reached += weight * scale
        if point < reached - 1e-9:
            return place
    return 0
