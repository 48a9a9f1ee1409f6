"""The history of our tables: going along it, and keeping the host's history out of it."""

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
# Any number will do, if nobody else locks it: "fcomm" as bytes.
_LOCK = 0x66636F6D6D

IncludeObject = Callable[..., bool]


def upgrade(database: Database, revision: str = "head") -> None:
    """Create our tables, or bring them up to ``revision``; several processes may do so at once.

    Raises :class:`DatabaseError` where the host's own history holds our tables.
    """
    _run(database, "upgrade", revision)


def downgrade(database: Database, revision: str) -> None:
    """Take our tables back to ``revision``; ``base`` drops them."""
    _run(database, "downgrade", revision)


def is_current(database: Database) -> bool:
    """Tell whether our tables are there, and as new as this package."""
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
            'with COMMUNICATION_MIGRATIONS="host" our tables are in your history; run: flask db '
            "upgrade"
        )
    config = _config()
    with database.write() as connection:
        _lock(connection)
        config.attributes["connection"] = connection
        getattr(commands, command)(config, revision)


def _lock(connection: Connection) -> None:
    # On SQLite the transaction began IMMEDIATE, and is the lock.
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
        # A bare checkout: the folder is beside the package, not in it.
        return Path(__file__).parent.parent / "migrations"
    return Path(next(iter(migrations.__path__)))


def adopt(metadata: MetaData) -> None:
    """Copy our tables into the host's metadata, so that its own history creates them."""
    from .models.indexes import whole_metadata

    for table in whole_metadata().sorted_tables:
        if table.name not in metadata.tables:
            for column in table.to_metadata(metadata).columns:
                if isinstance(column.type, UTCDateTime):
                    # So that the host's migration names no type it would have to import from us.
                    column.type = DateTime(timezone=True)


def guard_autogenerate(app: Flask) -> None:
    """Keep the host's ``flask db migrate`` from dropping our tables, which it does not know.

    It works whichever of Flask-Migrate and this extension is initialised first. A host whose env.py
    ignores ``configure_args`` passes ``include_object=history.include_object`` to Alembic itself.
    """
    if "migrate" in app.extensions:
        _wrap(app)
        return
    from flask import appcontext_pushed

    def later(sender: Flask, **kwargs: Any) -> None:
        # A host may push a context of its own before it comes to its Migrate.
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
    thing: Any, name: str | None, kind: str, reflected: bool, compare_to: Any
) -> bool:
    """Tell Alembic whether a table, or what belongs to one, is the host's and not ours."""
    table = name if kind == "table" else getattr(getattr(thing, "table", None), "name", None)
    return table != VERSION_TABLE and table not in Base.metadata.tables
