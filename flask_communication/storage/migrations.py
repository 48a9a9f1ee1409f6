"""Migrations of the tables by Alembic, separate from the host's own migrations."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import DateTime, MetaData, inspect, text
from sqlalchemy.engine import Connection

from ..errors import DatabaseError
from .database import Database
from .models.base import Base, UTCDateTime

if TYPE_CHECKING:
    from alembic.config import Config
    from flask import Flask

VERSION_TABLE = "alembic_version_communication"
# The key of a PostgreSQL advisory lock; any number that nothing else locks: "fcomm" as bytes.
_LOCK = 0x66636F6D6D

IncludeObject = Callable[..., bool]


def upgrade(database: Database, revision: str = "head") -> None:
    """Create the tables, or migrate them up to ``revision``. Several processes may do so at once.

    Raises :class:`DatabaseError` if the host's own migrations hold the tables.
    """
    _run(database, "upgrade", revision)


def downgrade(database: Database, revision: str) -> None:
    """Migrate the tables back to ``revision``; ``base`` drops them. See docs/upkeep.md."""
    _run(database, "downgrade", revision)


def is_current(database: Database) -> bool:
    """Tell whether the tables exist and are as new as this package."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config()).get_current_head()
    with database.engine.connect() as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return inspect(connection).has_table("communication_message") and _host_owns(database)
        found = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return bool(found == head)


def _host_owns(database: Database) -> bool:
    metadata = getattr(database.host, "metadata", None)
    return metadata is not None and "communication_message" in metadata.tables


def _run(database: Database, command: str, revision: str) -> None:
    from alembic import command as commands

    if _host_owns(database):
        raise DatabaseError(
            'with COMMUNICATION_MIGRATIONS="host" your own migrations hold the tables; run:'
            " flask db upgrade"
        )
    config = _config()
    with database.write() as connection:
        _lock(connection)
        config.attributes["connection"] = connection
        getattr(commands, command)(config, revision)


def _lock(connection: Connection) -> None:
    # On SQLite the transaction is the lock: it began with BEGIN IMMEDIATE.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _folder() -> Path:
    try:
        migrations = import_module("flask_communication.migrations")
    except ImportError:
        # In a source checkout the folder is beside the package, not in it.
        return Path(__file__).parent.parent / "migrations"
    return Path(next(iter(migrations.__path__)))


def adopt(metadata: MetaData) -> None:
    """Copy the tables into the host's metadata, so that the host's own migrations create them."""
    from .models.indexes import whole_metadata

    for table in whole_metadata().sorted_tables:
        if table.name not in metadata.tables:
            for column in table.to_metadata(metadata).columns:
                if isinstance(column.type, UTCDateTime):
                    # The host's migration script then needs no import from this package.
                    column.type = DateTime(timezone=True)


def guard_autogenerate(app: Flask) -> None:
    """Keep the host's ``flask db migrate`` from dropping the tables, which it does not know.

    Flask-Migrate and this extension may be initialised in any order. A host whose env.py ignores
    ``configure_args`` passes ``include_object=migrations.include_object`` to Alembic itself.
    """
    if "migrate" in app.extensions:
        _wrap(app)
        return
    from flask import appcontext_pushed

    def later(sender: Flask, **_: object) -> None:
        # The host may push a context before it initialises Flask-Migrate.
        if "migrate" in sender.extensions:
            appcontext_pushed.disconnect(later, sender)
            _wrap(sender)

    appcontext_pushed.connect(later, app, weak=False)


def _wrap(app: Flask) -> None:
    migrate = app.extensions["migrate"]
    inner: IncludeObject | None = migrate.configure_args.get("include_object")

    def include(*args: Any) -> bool:
        return include_object(*args) and (inner is None or inner(*args))

    migrate.configure_args["include_object"] = include


def include_object(
    thing: Any, name: str | None, kind: str, _reflected: bool, _compare_to: object
) -> bool:
    """Tell Alembic whether an object is the host's: not one of our tables, nor part of one."""
    table = name if kind == "table" else getattr(getattr(thing, "table", None), "name", None)
    return table != VERSION_TABLE and table not in Base.metadata.tables
