"""A provider as a process of its own: the contract of the seed over sockets.

Its manifest promises
to ignore repeats. It keeps what rang in a file, so that the test can count.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RANG: Counter[str] = Counter()
SEEN: dict[str, str] = {}
LOCK = threading.Lock()
MANIFEST = {
    "name": "pages",
    "label": "Pages",
    "types": ["sms"],
    "features": [],
    "config_schema": {"properties": {}},
    "idempotency_window": 3600,
    "report_after": 1,
}


class Pages(BaseHTTPRequestHandler):
    """The provider's doors."""

    protocol_version = "HTTP/1.1"
    pause = 0.02

    def do_GET(self) -> None:
        if self.path == "/rang":
            self._answer({"rang": dict(RANG)})
        else:
            self._answer(MANIFEST)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"/sms/send/": self._send, "/sms/delivery_report/": self._report}[self.path](body)
        self._answer({"success": True, "msg": "Successfully queued", "data": answer})

    def _send(self, body: dict[str, Any]) -> Any:
        assert set(body) == {"msg", "destination", "config"}, body
        time.sleep(self.pause)
        key = self.headers["Idempotency-Key"]
        with LOCK:
            if key not in SEEN:
                SEEN[key] = f"page-{len(SEEN)}"
                RANG[body["msg"]] += 1
        # It has rung; a worker that is killed now never hears of it.
        time.sleep(self.pause)
        return {"msg_uuid": SEEN[key], "extra_data": {}}

    def _report(self, body: dict[str, Any]) -> Any:
        return [{"msg_uuid": one, "status": "delivered"} for one in body["msg_uuids"]]

    def _answer(self, answer: Any) -> None:
        raw = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Pages)
    server.daemon_threads = True
    server.serve_forever()
