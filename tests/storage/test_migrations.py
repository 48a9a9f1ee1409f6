"""The migrations of the tables, and the host's own beside them."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import inspect

from flask_communication import SMS, Communication
from flask_communication.configs.state import state_of
from flask_communication.errors import DatabaseError, SettingError
from flask_communication.storage import migrations
from flask_communication.storage.database import Database
from flask_communication.storage.models.base import Base
from flask_communication.storage.models.indexes import whole_metadata
from tests.support.apps import MakeApp, install, work
from tests.support.providers import Scripted

OURS = set(Base.metadata.tables)


def tables(database: Database) -> set[str]:
    with database.engine.connect() as connection:
        return set(inspect(connection).get_table_names())


@pytest.fixture
def database(database_url: str) -> Any:
    database = Database(Flask("history"), None, database_url)
    yield database
    database.engine.dispose()


def test_upgrade_makes_our_tables_and_downgrade_takes_them_away(database: Database) -> None:
    assert not migrations.is_current(database)
    migrations.upgrade(database)
    assert tables(database) >= OURS
    assert migrations.is_current(database)
    migrations.upgrade(database)
    migrations.downgrade(database, "base")
    assert not tables(database) & OURS
    assert not migrations.is_current(database)


def test_the_example_of_the_docs_goes_back_and_upgrade_goes_forward_again(
    make_app: MakeApp, database_url: str
) -> None:
    app = make_app(database_url)
    database = state_of(app).database
    migrations.upgrade(database)
    page = Path(__file__).parents[2] / "docs" / "upkeep.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(example, {"app": app, "communication": Communication()})
    assert not migrations.is_current(database)
    migrations.upgrade(database)
    assert migrations.is_current(database)


def test_models_equal_migrations(database: Database) -> None:
    migrations.upgrade(database)
    with database.engine.connect() as connection:
        options = {
            "version_table": migrations.VERSION_TABLE,
            "compare_type": True,
            "include_object": lambda _thing, name, _kind, *_rest: name != migrations.VERSION_TABLE,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, whole_metadata()) == []
        indexes = {
            index["name"]: bool(index.get("unique"))
            for index in inspect(connection).get_indexes("communication_message")
            if not index.get("duplicates_constraint")
        }
    expected = {
        index.name: index.unique
        for index in whole_metadata().tables["communication_message"].indexes
    }
    assert indexes == expected


def test_eight_that_open_a_new_sqlite_file_together_all_write(tmp_path: Path) -> None:
    failures: list[Exception] = []

    def write(url: str, gate: threading.Barrier) -> None:
        database = Database(Flask("history"), None, url)
        gate.wait()
        try:
            with database.write() as connection:
                connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS host (id INTEGER)")
        except Exception as failure:
            failures.append(failure)
        database.engine.dispose()

    for turn in range(30):
        gate = threading.Barrier(8)
        given = (f"sqlite:///{tmp_path / str(turn)}", gate)
        threads = [threading.Thread(target=write, args=given) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_three_upgrades_at_once_all_succeed(database_url: str) -> None:
    failures: list[Exception] = []

    def upgrade() -> None:
        database = Database(Flask("history"), None, database_url)
        try:
            migrations.upgrade(database)
        except Exception as failure:
            failures.append(failure)
        database.engine.dispose()

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def host_with_history(url: str, folder: Path, first: str, **config: Any) -> tuple[Flask, Any]:
    """Make a host with a table and a migration history of its own."""
    app = Flask("shop", root_path=str(folder))
    app.config.update(SQLALCHEMY_DATABASE_URI=url, COMMUNICATION_EMBEDDED_WORKER=False, **config)
    db = SQLAlchemy(app)

    class Order(db.Model):  # type: ignore[name-defined,misc]
        id = db.Column(db.Integer, primary_key=True)

    if first == "migrate":
        Migrate(app, db)
    Communication(app, db)
    if first == "communication":
        Migrate(app, db)
    return app, db


def autogenerate(app: Flask, folder: Path) -> str:
    """Run the host's ``flask db init`` and ``flask db migrate``; return what it would do."""
    import flask_migrate

    with app.app_context():
        flask_migrate.init(directory=str(folder / "migrations"))
        flask_migrate.migrate(directory=str(folder / "migrations"))
        flask_migrate.upgrade(directory=str(folder / "migrations"))
    (script,) = (folder / "migrations" / "versions").glob("*.py")
    return script.read_text()


@pytest.mark.parametrize("first", ["migrate", "communication"])
def test_the_hosts_autogenerate_never_drops_our_tables(
    database_url: str, tmp_path: Path, first: str
) -> None:
    app, _ = host_with_history(database_url, tmp_path, first)
    database = state_of(app).database
    migrations.upgrade(database)
    written = autogenerate(app, tmp_path)
    assert "communication" not in written
    assert "'order'" in written
    assert tables(database) >= OURS | {"order"}
    assert migrations.is_current(database)


def test_a_host_may_take_our_tables_into_its_own_history(database_url: str, tmp_path: Path) -> None:
    app, _ = host_with_history(database_url, tmp_path, "migrate", COMMUNICATION_MIGRATIONS="host")
    database = state_of(app).database
    with pytest.raises(DatabaseError, match="flask db upgrade"):
        migrations.upgrade(database)
    written = autogenerate(app, tmp_path)
    assert "communication_message" in written
    assert tables(database) >= OURS
    assert migrations.VERSION_TABLE not in tables(database)
    assert migrations.is_current(database)
    provider = Scripted()
    install(app, provider)
    with app.app_context():
        uuid = SMS.send_msg("+919999911111", "Hello")
        work(app)
        assert SMS.get(uuid).status == "sent"


def test_a_host_without_sqlalchemy_has_a_database_of_ours(
    make_app: MakeApp, database_url: str
) -> None:
    app = make_app(database_url, db=False)
    migrations.upgrade(state_of(app).database)
    install(app, Scripted())
    with app.app_context():
        uuid = SMS.send_msg("+919999911111", "Hello")
        work(app)
        assert SMS.get(uuid).status == "sent"


def test_a_host_without_any_database_is_told_what_to_set() -> None:
    app = Flask("none")
    Communication(app)
    with app.app_context(), pytest.raises(SettingError, match="COMMUNICATION_DATABASE_URL"):
        SMS.send_msg("+919999911111", "Hello")


def test_another_kind_of_database_is_refused_by_name() -> None:
    from flask_communication.storage.dialect import dialect_of

    class Mysql:
        class dialect:
            name = "mysql"

    with pytest.raises(SettingError, match="mysql"):
        dialect_of(Mysql())  # type: ignore[arg-type]
