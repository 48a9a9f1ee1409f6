"""Configurations at run time: stored, changed, listed and hidden, with their secrets kept secret."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from ..errors import CommunicationError, ConfigNotFound, Conflict, InvalidConfig, InvalidQuery
from ..storage.models import Config
from . import breaker
from .encryption import SEALED
from .state import State

MASK = "********"
TYPES = ("sms", "email", "telephony")
MAX_CONFIG = 20_000
# Messages a second: one a day is the least that a person can mean.
LEAST_RATE, MOST_RATE = 1 / 86_400, 1e6
_LOOKS_LIKE_A_MASK = re.compile(r"[*•●]{3,}")
_URL_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")
# Fields of a row besides what the seed names, with what each must be.
_PLAIN = ("is_default", "enabled", "fallback", "weight", "rate_per_second")


def sealed_label(config_id: int) -> str:
    """Return what binds the secrets of a configuration to its row."""
    return f"config:{config_id}"


def values(state: State, row: Any) -> dict[str, Any]:
    """Return the decrypted settings of a row that has ``id`` and ``sealed``.

    Raises :class:`SettingError` when no key opens them.
    """
    return state.vault.open(row.sealed, sealed_label(row.id))


def create(state: State, fields: Mapping[str, Any]) -> int:
    """Store a configuration and return its id; the first of a type becomes its default.

    ``fields`` has ``type``, ``provider``, ``provider_pkg_name`` and ``config``, and may have
    ``key``, ``is_default``, ``enabled``, ``fallback``, ``weight`` and ``rate_per_second``. Raises
    :class:`InvalidConfig`.
    """
    given = _checked(fields)
    secrets = _Secrets(state, given["provider_pkg_name"], given["provider"])
    _refuse_masks(given["config"])
    with state.database.write() as connection:
        _refuse_taken_key(connection, given["type"], given.get("key"), None)
        row = {name: given[name] for name in ("type", "provider", "provider_pkg_name")}
        row |= {name: given[name] for name in ("key", *_PLAIN) if name in given}
        row["is_default"] = _becomes_default(connection, given, None)
        now = datetime.now(UTC)
        config_id: int = connection.execute(
            insert(Config)
            .values(sealed="{}", created_at=now, updated_at=now, **row)
            .returning(Config.id)
        ).scalar_one()
        _store(connection, config_id, sealed=_seal(state, config_id, given["config"], secrets))
    return config_id


def store_default(connection: Connection, type: str, package: str) -> None:
    """Store a configuration without settings as the default of its type, where there is none."""
    from sqlalchemy.dialects import postgresql, sqlite

    into = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    now = datetime.now(UTC)
    row = {"type": type, "provider_pkg_name": package, "created_at": now, "updated_at": now}
    connection.execute(into(Config).values(is_default=True, **row).on_conflict_do_nothing())


def change(state: State, config_id: Any, fields: Mapping[str, Any]) -> int:
    """Change a configuration and return its id.

    A setting that is left out, or comes as the mask, is kept; None clears it. A configuration that
    was paused gets another chance. Raises :class:`ConfigNotFound`, :class:`InvalidConfig`, and
    :class:`Conflict` when ``version`` is given and somebody else was quicker.
    """
    number = _id(config_id)
    with state.database.write() as connection:
        row = _row(connection, number)
        given = _checked({**_as_fields(row), **fields})
        _refuse_old_version(row, fields.get("version"))
        _refuse_taken_key(connection, given["type"], given.get("key"), number)
        secrets = _Secrets(state, given["provider_pkg_name"], given["provider"])
        merged = _merged(state, row, given, secrets)
        changed = {name: given[name] for name in ("type", "provider", "provider_pkg_name")}
        changed |= {name: given[name] for name in ("key", *_PLAIN) if name in given}
        changed["is_default"] = _becomes_default(connection, given, number)
        _store(
            connection,
            number,
            sealed=_seal(state, number, merged, secrets),
            version=row.version + 1,
            updated_at=datetime.now(UTC),
            **changed,
        )
        reopened = breaker.close(connection, number)
    breaker.announce(state.app, reopened)
    return number


def listing(
    state: State, type: str | None = None, provider: str | None = None, key: str | None = None
) -> list[dict[str, Any]]:
    """Return the configurations as the seed lists them, secrets masked, the oldest first.

    Raises :class:`InvalidQuery` for a type that does not exist.
    """
    if type is not None and type not in TYPES:
        raise InvalidQuery({"type": [f"must be one of {', '.join(TYPES)}"]})
    wanted = select(Config).where(Config.deleted_at.is_(None)).order_by(Config.id)
    for column, value in ((Config.type, type), (Config.provider, provider), (Config.key, key)):
        if value:
            wanted = wanted.where(column == value)
    with state.database.session() as session:
        rows = list(session.scalars(wanted))
    return [_shown(state, row) for row in rows]


def strangers(state: State) -> dict[int, list[str]]:
    """Return the fallbacks that name no configuration of their type: id -> names."""
    columns = (Config.id, Config.type, Config.key, Config.fallback)
    with state.database.read() as connection:
        rows = connection.execute(select(*columns).where(Config.deleted_at.is_(None))).all()
    named = {(row.type, name) for row in rows for name in (row.key, str(row.id))}
    found = {row.id: [one for one in row.fallback if (row.type, one) not in named] for row in rows}
    return {config_id: names for config_id, names in found.items() if names}


def delete(state: State, config_id: Any) -> None:
    """Hide a configuration; nothing is sent by it any more. Raises :class:`ConfigNotFound`.

    Its row stays, because the messages it sent may still ask it for their delivery reports.
    """
    with state.database.write() as connection:
        number = _row(connection, _id(config_id)).id
        _store(connection, number, deleted_at=datetime.now(UTC), enabled=False, is_default=False)


def name_of(state: State, config_id: Any) -> str:
    """Return what a person calls a configuration; raise :class:`ConfigNotFound`."""
    with state.database.read() as connection:
        row = _row(connection, _id(config_id))
    return f"{row.type} {row.key or row.provider or row.provider_pkg_name or ''} ({row.id})"


def reseal(state: State) -> tuple[int, list[str]]:
    """Encrypt all secrets with the first key; return how many configurations, and what could not be opened.

    Deleted ones too: their messages may still ask them for delivery reports. Raises
    :class:`InvalidConfig` when there is no key.
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


def _id(raw: Any) -> int:
    text = str(raw)
    if isinstance(raw, bool) or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidConfig({"id": ["must be the number of a configuration"]})
    return int(text)


def _row(connection: Connection, config_id: int) -> Any:
    found = connection.execute(
        select(Config.__table__).where(Config.id == config_id, Config.deleted_at.is_(None))
    ).first()
    if found is None:
        raise ConfigNotFound(f"there is no configuration {config_id}")
    return found


def _as_fields(row: Any) -> dict[str, Any]:
    kept = ("type", "provider", "provider_pkg_name", "key", *_PLAIN)
    return {name: getattr(row, name) for name in kept} | {"config": {}}


def _store(connection: Connection, config_id: int, **columns: Any) -> None:
    connection.execute(update(Config).where(Config.id == config_id).values(**columns))


def _becomes_default(connection: Connection, given: Mapping[str, Any], mine: int | None) -> bool:
    others = [Config.type == given["type"], Config.deleted_at.is_(None), Config.is_default]
    if mine is not None:
        others.append(Config.id != mine)
    if given.get("is_default"):
        connection.execute(update(Config).where(*others).values(is_default=False))
        return True
    if given.get("enabled", True) is False:
        return False
    # Somebody has to be: "no default" would only be noticed by a message that cannot be sent.
    asked = "is_default" in given and mine is None and given["is_default"] is False
    return not asked and connection.scalar(select(Config.id).where(*others)) is None


def _refuse_taken_key(connection: Connection, type: str, key: str | None, mine: int | None) -> None:
    taken = [Config.type == type, Config.key == key, Config.deleted_at.is_(None)]
    if mine is not None:
        taken.append(Config.id != mine)
    if key is not None and connection.scalar(select(Config.id).where(*taken)) is not None:
        raise InvalidConfig({"key": [f"another {type} configuration has the key {key!r}"]})


def _refuse_old_version(row: Any, version: Any) -> None:
    if version is not None and str(version) != str(row.version):
        raise Conflict(
            f"configuration {row.id} was changed by somebody else (version {row.version}); read it "
            "again"
        )


class _Secrets:
    """Which settings of a provider are secret, and which say where secrets are sent."""

    def __init__(self, state: State, package: str, provider: str) -> None:
        try:
            schema = state.registry.find(package or provider).config_schema
        except CommunicationError:
            schema = None
        properties = (schema or {}).get("properties")
        self._properties: Mapping[str, Any] = properties if isinstance(properties, Mapping) else {}

    def hides(self, name: str) -> bool:
        """Tell whether a setting is secret: all are that the provider does not declare public."""
        about = self._properties.get(name)
        return not isinstance(about, Mapping) or bool(about.get("writeOnly"))

    def is_destination(self, name: str) -> bool:
        """Tell whether a setting says where secrets are sent."""
        about = self._properties.get(name)
        return isinstance(about, Mapping) and bool(about.get("destination"))


def _seal(state: State, config_id: int, config: Mapping[str, Any], secrets: _Secrets) -> str:
    if any(secrets.hides(name) for name in config):
        return state.vault.seal(config, sealed_label(config_id))
    return json.dumps(dict(config))


def _shown(state: State, row: Config) -> dict[str, Any]:
    secrets = _Secrets(state, row.provider_pkg_name, row.provider)
    shown: dict[str, Any] = {
        name: getattr(row, name)
        for name in ("id", "provider", "provider_pkg_name", "type", "key", "version", *_PLAIN)
    }
    try:
        known = values(state, row)
    except CommunicationError as wrong:
        # One row that cannot be opened must not hide the others.
        return shown | {"config": {}, "problem": str(wrong)}
    return shown | {
        "config": {name: MASK if secrets.hides(name) else known[name] for name in known}
    }


def _merged(state: State, row: Any, given: Mapping[str, Any], secrets: _Secrets) -> dict[str, Any]:
    known = values(state, row) if given["config"] or row.sealed.startswith(SEALED) else {}
    fresh = {name: value for name, value in given["config"].items() if value != MASK}
    _refuse_masks(fresh)
    strangers = sorted(set(given["config"]) - set(fresh) - set(known))
    if strangers:
        raise InvalidConfig(
            {f"config.{name}": ["is a mask, and nothing is stored"] for name in strangers}
        )
    merged = {**known, **fresh}
    kept = [name for name in known if secrets.hides(name) and name not in fresh]
    if kept and _goes_elsewhere(row, given, known, merged, secrets):
        raise InvalidConfig(
            {
                f"config.{name}": ["enter the secret again: it would go to another place"]
                for name in kept
            }
        )
    return {name: value for name, value in merged.items() if value is not None}


def _goes_elsewhere(
    row: Any,
    given: Mapping[str, Any],
    known: Mapping[str, Any],
    merged: Mapping[str, Any],
    secrets: _Secrets,
) -> bool:
    if any(getattr(row, name) != given[name] for name in ("type", "provider", "provider_pkg_name")):
        return True
    return any(
        known.get(name) != value for name, value in merged.items() if secrets.is_destination(name)
    )


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(fields)
    wrong: dict[str, list[str]] = {}
    if given.get("type") not in TYPES:
        wrong["type"] = [f"must be one of {', '.join(TYPES)}"]
    for name, limit in (("provider", 100), ("provider_pkg_name", 200)):
        given[name] = given.get(name) or ""
        if not _is_line(given[name], limit, empty=True):
            wrong[name] = [f"must be a line of at most {limit} characters"]
    if given.get("key") is not None and not _is_line(given["key"], 100):
        wrong["key"] = ["must be a line of 1 to 100 characters"]
    wrong |= _wrong_numbers(given)
    wrong |= _wrong_config(given.setdefault("config", {}))
    if wrong:
        raise InvalidConfig(wrong)
    return given


def _is_line(raw: Any, limit: int, *, empty: bool = False) -> bool:
    return isinstance(raw, str) and (empty or raw != "") and len(raw) <= limit and raw.isprintable()


def _wrong_numbers(given: Mapping[str, Any]) -> dict[str, list[str]]:
    wrong: dict[str, list[str]] = {}
    for name in ("is_default", "enabled"):
        if not isinstance(given.get(name, True), bool):
            wrong[name] = ["must be true or false"]
    fallback = given.get("fallback", [])
    if not isinstance(fallback, list) or not all(_is_line(one, 100) for one in fallback):
        wrong["fallback"] = ["must be a list of keys of configurations"]
    weight = given.get("weight", 100)
    if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= 1000:
        wrong["weight"] = ["must be a whole number from 0 to 1000"]
    rate = given.get("rate_per_second")
    if rate is not None and (
        isinstance(rate, bool)
        or not isinstance(rate, int | float)
        or not LEAST_RATE <= rate <= MOST_RATE
    ):
        wrong["rate_per_second"] = [
            "must be a number from 1/86400 (one a day) to a million, or null"
        ]
    return wrong


def _wrong_config(config: Any) -> dict[str, list[str]]:
    if not isinstance(config, Mapping):
        return {"config": ["must be an object"]}
    wrong = {
        f"config.{name}": ["must be a line of text, a number, true, false or null"]
        for name, value in config.items()
        if not isinstance(value, str | int | float | bool | None)
    }
    try:
        text = json.dumps(dict(config), allow_nan=False)
    except (TypeError, ValueError):
        return wrong or {"config": ["must be JSON"]}
    if (
        len(text) > MAX_CONFIG
        or "\\u0000" in text
        or re.search(r"\\ud[89a-f]", text)
        and not _is_utf8(config)
    ):
        wrong["config"] = [f"must be at most {MAX_CONFIG} characters of valid Unicode, without NUL"]
    for name, value in config.items():
        if isinstance(value, str) and _URL_WITH_PASSWORD.search(value):
            wrong[f"config.{name}"] = [
                "has a password in an address; store it in a setting of its own"
            ]
    return wrong


def _is_utf8(config: Mapping[str, Any]) -> bool:
    try:
        json.dumps(dict(config), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_masks(config: Mapping[str, Any]) -> None:
    masked = [n for n, v in config.items() if isinstance(v, str) and _LOOKS_LIKE_A_MASK.match(v)]
    if masked:
        raise InvalidConfig(
            {f"config.{name}": ["is a mask; enter the secret itself"] for name in masked}
        )
