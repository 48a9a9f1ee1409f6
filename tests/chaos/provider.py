"""A provider on the loopback that rings, and then misbehaves.

What rang is in this process, and survives.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Whether it rings before it misbehaves.
FAULTS = {
    "hang": True,
    "reset after": True,
    "500": True,
    "bad json": True,
    "429": False,
    "503": False,
    "reset before": False,
}


@dataclass
class Telephones:
    """What rang, who called last for which message, and how often it misbehaves."""

    window: float
    keeps_its_word: bool
    faults: float
    seed: int
    hang: float
    rang: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    caller: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def call(self, key: str, msg: str, pid: int) -> str | None:
        """Ring, or not; return the fault to show, if any."""
        with self.lock:
            self.caller[key] = pid
            fault = self.chance.choice(list(FAULTS)) if self.chance.random() < self.faults else None
            if fault is None or FAULTS[fault]:
                if not (self.window and self.keeps_its_word and key in self.keys):
                    self.rang[msg] += 1
                self.keys.add(key)
            return fault


class Door(BaseHTTPRequestHandler):
    """The contract's calls, under /<pid of the caller>/."""

    protocol_version = "HTTP/1.1"
    telephones: Telephones

    def do_GET(self) -> None:
        self._answer(
            200,
            {
                "name": "chaos",
                "label": "Chaos",
                "types": ["sms"],
                "features": [],
                "config_schema": {"properties": {}},
                "idempotency_window": self.telephones.window,
                "report_after": 2,
            },
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/delivery_report/"):
            found = [{"msg_uuid": one, "status": "delivered"} for one in body["msg_uuids"]]
            self._answer(200, {"success": True, "msg": "", "data": found})
            return
        key = self.headers["Idempotency-Key"]
        time.sleep(0.03)
        fault = self.telephones.call(key, body["msg"], int(self.path.split("/")[1]))
        time.sleep(0.03)
        if fault is None:
            self._answer(
                200, {"success": True, "msg": "", "data": {"msg_uuid": key, "extra_data": {}}}
            )
        else:
            self._misbehave(fault)

    def _misbehave(self, fault: str) -> None:
        if fault in ("429", "503", "500"):
            headers = {"Retry-After": "1"} if fault != "500" else {}
            self._answer(int(fault), {"success": False, "msg": "not now"}, headers)
        elif fault == "bad json":
            self._answer(200, '{"success": tr')
        else:
            if fault == "hang":
                time.sleep(self.telephones.hang)
            self.close_connection = True
            # With a linger of 0, closing sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _answer(self, code: int, said: Any, headers: dict[str, str] | None = None) -> None:
        body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            self.close_connection = True  # the caller was killed, or we hung up

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(telephones: Telephones) -> Iterator[str]:
    """Serve them; yield the address."""
    door = type("OwnDoor", (Door,), {"telephones": telephones})
    server = ThreadingHTTPServer(("127.0.0.1", 0), door)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.socket.close()
