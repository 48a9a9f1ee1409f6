"""Which configuration a message goes by, and how to reach its provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, bindparam, text
from sqlalchemy.engine import Connection

from .configs import values
from .errors import CommunicationError, ConfigNotFound
from .providers.base import Provider
from .state import State


@dataclass(frozen=True)
class Route:
    """One configuration, ready to be used; ``blocked`` says why nothing may be sent by it.

    A blocked one may still have a provider, to be asked for the delivery reports of what it sent.
    """

    config_id: int
    provider: Provider | None = None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    blocked: str | None = None

    @property
    def window(self) -> float:
        """Seconds during which the provider ignores a repeated key; 0 if it never does."""
        return float(self.provider.idempotency_window) if self.provider else 0.0

    @property
    def batch(self) -> int:
        """How many messages one call may carry."""
        if self.provider is None or "bulk" not in self.provider.features:
            return 1
        return max(1, self.provider.bulk_limit)


def choose(connection: Connection, channel: str, key: str | int | None) -> int:
    """Return the id of the configuration that ``key`` names: a key, an id, or None for the default.

    Raises :class:`ConfigNotFound`, which says what to do.
    """
    wanted = None if key is None else str(key)
    found = connection.execute(_CHOICE[wanted is None], {"type": channel, "key": wanted}).first()
    if found is None:
        raise ConfigNotFound(_missing(channel, wanted))
    return int(found.id)


_ENABLED = "SELECT id FROM communication_config WHERE type = :type AND deleted_at IS NULL AND enabled"
_CHOICE = {
    True: text(f"{_ENABLED} AND is_default"),
    # A key made of digits wins over the id it looks like.
    False: text(
        f"{_ENABLED} AND (key = :key OR CAST(id AS varchar(20)) = :key)"
        " ORDER BY CASE WHEN key = :key THEN 0 ELSE 1 END LIMIT 1"
    ),
}


def _missing(channel: str, key: str | None) -> str:
    if key is None:
        return (
            f"no {channel} configuration is the default; add one with: "
            f"flask communication config add --type {channel} --provider-pkg-name simulator --default"
        )
    return (
        f"no enabled {channel} configuration has the key or id {key!r}; see: flask communication config list"
    )


class Routes:
    """The routes one worker has in use; asked anew for each batch, decrypted anew on a change."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[int, tuple[int, Route]] = {}

    def load(self, connection: Connection, ids: Iterable[int | None]) -> dict[int, Route]:
        """Return the routes of these configurations, including why one cannot be used."""
        wanted = {one for one in ids if one is not None}
        if not wanted:
            return {}
        rows = connection.execute(_CONFIGS, {"ids": sorted(wanted)})
        return {row.id: self._route(row) for row in rows}

    def _route(self, row: Row[Any]) -> Route:
        version, known = self._known.get(row.id, (None, None))
        if known is None or version != row.version or known.provider is None:
            known = self._open(row)
            self._known[row.id] = (row.version, known)
        return known

    def _open(self, row: Row[Any]) -> Route:
        try:
            provider = self._state.registry.find(row.provider_pkg_name or row.provider)
            return Route(row.id, provider, values(self._state, row), _closed(row))
        except CommunicationError as wrong:
            return Route(row.id, blocked=_closed(row) or str(wrong))


def _closed(row: Row[Any]) -> str | None:
    if row.is_deleted:
        return f"configuration {row.id} was deleted; retry_send sends by the default one"
    return None if row.enabled else f"configuration {row.id} is disabled"


_CONFIGS = text(
    "SELECT id, provider, provider_pkg_name, sealed, version, enabled,"
    " deleted_at IS NOT NULL AS is_deleted"
    " FROM communication_config WHERE id IN :ids"
).bindparams(bindparam("ids", expanding=True))
