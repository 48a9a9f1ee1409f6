"""Configurations in the database: stored, changed, listed and deleted, their secrets encrypted."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import Row, insert, select, update
from sqlalchemy.engine import Connection

from ..errors import CommunicationError, ConfigNotFound, Conflict, InvalidConfig, InvalidQuery
from ..providers.base import Provider
from ..providers.net import hosts
from ..storage.models import Config
from . import breaker, schema
from .encryption import SEALED
from .schema import MASK, ConfigFields
from .state import State

log = logging.getLogger(__name__)

_LISTED = (
    *("id", "type", "provider", "provider_pkg_name", "key", "is_default", "enabled"),
    *("fallback", "weight", "rate_per_second", "version"),
)


def sealed_label(config_id: int) -> str:
    """Return the label that binds the secrets of a configuration to its row."""
    return f"config:{config_id}"


class Sealed(Protocol):
    """A row of a configuration with its encrypted settings."""

    @property
    def id(self) -> int:
        """Its id."""

    @property
    def sealed(self) -> str:
        """Its encrypted settings."""


def values(state: State, row: Row[Any] | Sealed) -> dict[str, Any]:
    """Return the decrypted settings of a row that has ``id`` and ``sealed``.

    Raises :class:`SettingError` when no key opens them.
    """
    return state.vault.open(row.sealed, sealed_label(row.id))


def create(state: State, fields: Mapping[str, Any]) -> int:
    """Store a configuration and return its id; the first of a type becomes its default.

    ``fields`` are those of :class:`.schema.ConfigCreate`. The provider may be asked which settings
    are secret, before the transaction begins. Raises :class:`InvalidConfig`.
    """
    given = schema.read_new(fields, state.channel_names)
    secrets = _Secrets.of(state, given.package)
    with state.database.write() as connection:
        _refuse_taken_key(connection, given, None)
        is_default = _becomes_default(connection, given, None)
        now = datetime.now(UTC)
        row = given.columns() | {"is_default": is_default, "created_at": now, "updated_at": now}
        config_id: int = connection.execute(
            insert(Config).values(sealed="{}", **row).returning(Config.id)
        ).scalar_one()
        _store(connection, config_id, sealed=_seal(state, config_id, given.config, secrets))
    return config_id


def change(state: State, config_id: object, fields: Mapping[str, Any]) -> int:
    """Change a configuration and return its id.

    ``fields`` are those of :class:`.schema.ConfigUpdate`. A setting that is left out, or comes as
    the mask, is kept; None clears it. A configuration that was paused is tried again. The provider
    may be asked which settings are secret, before the transaction begins. Raises
    :class:`ConfigNotFound`, :class:`InvalidConfig`, and :class:`Conflict` when ``version`` is given
    and the configuration was changed since.
    """
    changes = schema.read_changes(config_id, fields, state.channel_names)
    with state.database.read() as connection:
        before = _row(connection, changes.id)
    secrets = _Secrets.of(state, changes.applied_to(_entered(before)).package)
    with state.database.write() as connection:
        row = _row(connection, changes.id)
        _refuse_old_version(row, changes.version)
        given = changes.applied_to(_entered(row))
        if given.package != secrets.package:
            raise _changed_meanwhile(row)
        _refuse_taken_key(connection, given, row.id)
        merged = _merged(state, row, given, secrets)
        _store(
            connection,
            row.id,
            sealed=_seal(state, row.id, merged, secrets),
            is_default=_becomes_default(connection, given, row.id),
            version=row.version + 1,
            updated_at=datetime.now(UTC),
            **given.columns(),
        )
        reopened = breaker.close(connection, row.id)
    breaker.announce(state.app, reopened)
    return changes.id


def listing(
    state: State, type: str | None = None, provider: str | None = None, key: str | None = None
) -> list[dict[str, Any]]:
    """Return the configurations as the REST call lists them, secrets masked, the oldest first.

    Each provider may be asked which settings are secret. Raises :class:`InvalidQuery` for a type
    that does not exist.
    """
    if type is not None and type not in state.channel_names:
        raise InvalidQuery({"type": [f"must be one of {', '.join(state.channel_names)}"]})
    wanted = select(Config).where(Config.deleted_at.is_(None)).order_by(Config.id)
    for column, value in ((Config.type, type), (Config.provider, provider), (Config.key, key)):
        if value:
            wanted = wanted.where(column == value)
    with state.database.session() as session:
        rows = list(session.scalars(wanted))
    packages = {row.provider_pkg_name or row.provider for row in rows}
    secrets = {package: _Secrets.of(state, package) for package in packages}
    return [_shown(state, row, secrets[row.provider_pkg_name or row.provider]) for row in rows]


def unknown_fallbacks(state: State) -> dict[int, list[str]]:
    """Return the fallbacks that name no configuration of their type: id -> names."""
    columns = (Config.id, Config.type, Config.key, Config.fallback)
    with state.database.read() as connection:
        rows = connection.execute(select(*columns).where(Config.deleted_at.is_(None))).all()
    named = {(row.type, name) for row in rows for name in (row.key, str(row.id))}
    found = {row.id: [one for one in row.fallback if (row.type, one) not in named] for row in rows}
    return {config_id: names for config_id, names in found.items() if names}


def delete(state: State, config_id: object) -> None:
    """Hide a configuration, so that nothing more is sent by it; raise :class:`ConfigNotFound`.

    Its row stays, because the provider is still asked for delivery reports of what it sent.
    """
    number = schema.read_id(config_id)
    with state.database.write() as connection:
        _row(connection, number)
        _store(connection, number, deleted_at=datetime.now(UTC), enabled=False, is_default=False)


def name_of(state: State, config_id: object) -> str:
    """Return the type, name and id of a configuration, for people.

    Raises :class:`ConfigNotFound`.
    """
    number = schema.read_id(config_id)
    with state.database.read() as connection:
        row = _row(connection, number)
    return f"{row.type} {row.key or row.provider or row.provider_pkg_name or ''} ({row.id})"


def reseal(state: State) -> tuple[int, list[str]]:
    """Encrypt all secrets with the first key.

    Return how many configurations were encrypted, and why the others could not be opened. Deleted
    ones too: their providers are still asked for delivery reports. Raises :class:`InvalidConfig`
    when there is no key.
    """
    resealed, problems = 0, []
    with state.database.write() as connection:
        columns = select(Config.id, Config.sealed).order_by(Config.id)
        for row in connection.execute(columns.with_for_update()).all():
            if not row.sealed.startswith(SEALED):
                continue
            try:
                known = values(state, row)
            except CommunicationError as wrong:
                problems.append(str(wrong))
                continue
            _store(connection, row.id, sealed=state.vault.seal(known, sealed_label(row.id)))
            resealed += 1
    return resealed, problems


def _row(connection: Connection, config_id: int) -> Row[Any]:
    found = connection.execute(
        select(Config.__table__).where(Config.id == config_id, Config.deleted_at.is_(None))
    ).first()
    if found is None:
        raise ConfigNotFound(f"there is no configuration {config_id}")
    return found


def _entered(row: Row[Any]) -> ConfigFields:
    return ConfigFields(
        type=row.type,
        provider=row.provider,
        provider_pkg_name=row.provider_pkg_name,
        key=row.key,
        is_default=row.is_default,
        enabled=row.enabled,
        fallback=row.fallback,
        weight=row.weight,
        rate_per_second=row.rate_per_second,
    )


def _store(connection: Connection, config_id: int, **columns: object) -> None:
    connection.execute(update(Config).where(Config.id == config_id).values(**columns))


def _becomes_default(connection: Connection, given: ConfigFields, mine: int | None) -> bool:
    others = [Config.type == given.type, Config.deleted_at.is_(None), Config.is_default]
    if mine is not None:
        others.append(Config.id != mine)
    if given.is_default:
        connection.execute(update(Config).where(*others).values(is_default=False))
        return True
    # A new one may be stored as not the default; one that exists only passes the role on.
    if not given.enabled or (mine is None and given.is_default is False):
        return False
    # Without any default, the first that notices is a message that cannot be sent.
    return connection.scalar(select(Config.id).where(*others)) is None


def _refuse_taken_key(connection: Connection, given: ConfigFields, mine: int | None) -> None:
    taken = [Config.type == given.type, Config.key == given.key, Config.deleted_at.is_(None)]
    if mine is not None:
        taken.append(Config.id != mine)
    if given.key is not None and connection.scalar(select(Config.id).where(*taken)) is not None:
        raise InvalidConfig(
            {"key": [f"another {given.type} configuration has the key {given.key!r}"]}
        )


def _refuse_old_version(row: Row[Any], version: str | int | None) -> None:
    if version is not None and str(version) != str(row.version):
        raise _changed_meanwhile(row)


def _changed_meanwhile(row: Row[Any]) -> Conflict:
    return Conflict(
        f"configuration {row.id} was changed by somebody else (version {row.version}); "
        "read it again"
    )


@dataclass(frozen=True)
class _Secrets:
    """Which settings of a provider are secret, and which say where secrets are sent."""

    package: str
    properties: Mapping[str, Any]

    @classmethod
    def of(cls, state: State, package: str) -> _Secrets:
        """Ask the provider, which may be a request that lasts: never inside a transaction."""
        try:
            declared = _schema(state, state.registry.find(package))
        except CommunicationError:
            declared = None
        properties = (declared or {}).get("properties")
        return cls(package, properties if isinstance(properties, Mapping) else {})

    def hides(self, name: str) -> bool:
        """Tell whether a setting is secret: all are that the provider does not declare public."""
        about = self.properties.get(name)
        return not isinstance(about, Mapping) or bool(about.get("writeOnly"))

    def is_destination(self, name: str) -> bool:
        """Tell whether a setting says where secrets are sent."""
        about = self.properties.get(name)
        return isinstance(about, Mapping) and bool(about.get("destination"))


def _schema(state: State, provider: Provider) -> Mapping[str, Any] | None:
    can = provider.capabilities
    if can.known:
        return can.config_schema
    try:
        with hosts.guarded(state.settings.private_hosts):
            return provider.learn().config_schema
    except Exception:
        log.exception("provider %s failed to find out what it can do", provider.name)
        return None


def _seal(state: State, config_id: int, config: Mapping[str, Any], secrets: _Secrets) -> str:
    if any(secrets.hides(name) for name in config):
        return state.vault.seal(config, sealed_label(config_id))
    return json.dumps(dict(config))


def _shown(state: State, row: Config, secrets: _Secrets) -> dict[str, Any]:
    shown: dict[str, Any] = {name: getattr(row, name) for name in _LISTED}
    try:
        known = values(state, row)
    except CommunicationError as wrong:
        # One row that cannot be opened must not hide the others.
        return shown | {"config": {}, "problem": str(wrong)}
    return shown | {
        "config": {name: MASK if secrets.hides(name) else known[name] for name in known}
    }


def _merged(state: State, row: Row[Any], given: ConfigFields, secrets: _Secrets) -> dict[str, Any]:
    known = values(state, row) if given.config or row.sealed.startswith(SEALED) else {}
    fresh = {name: value for name, value in given.config.items() if value != MASK}
    schema.refuse_masks(fresh)
    unknown = sorted(set(given.config) - set(fresh) - set(known))
    if unknown:
        raise InvalidConfig(
            {f"config.{name}": ["is a mask, and nothing is stored"] for name in unknown}
        )
    merged = {**known, **fresh}
    kept = [name for name in known if secrets.hides(name) and name not in fresh]
    if kept and _goes_elsewhere(row, given, known, merged, secrets):
        reason = "enter the secret again: it would go to another place"
        raise InvalidConfig({f"config.{name}": [reason] for name in kept})
    return {name: value for name, value in merged.items() if value is not None}


def _goes_elsewhere(
    row: Row[Any],
    given: ConfigFields,
    known: Mapping[str, Any],
    merged: Mapping[str, Any],
    secrets: _Secrets,
) -> bool:
    names = ("type", "provider", "provider_pkg_name")
    if any(getattr(row, name) != getattr(given, name) for name in names):
        return True
    return any(
        known.get(name) != value for name, value in merged.items() if secrets.is_destination(name)
    )
