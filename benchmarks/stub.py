"""A provider that answers at once, or after a delay, in a process of its own: python stub.py PORT.

``/plain/`` and ``/bulk/`` are two providers that speak the contract; ``/stub/…`` asks and sets the
stub: ``POST /stub/reset?0.05`` forgets what rang and answers after 50 ms from now on, ``GET
/stub/stats`` tells how many messages rang, and when the first and the last (CLOCK_MONOTONIC, common
to all processes).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Record:
    """What rang since the last reset."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.count = 0
        self.first = self.last = 0.0

    def ring(self, messages: int) -> None:
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.count += messages

    def reset(self, delay: float) -> None:
        self.__init__()  # type: ignore[misc]
        self.delay = delay


RECORD = Record()


class Stub(asyncio.Protocol):
    """One connection, kept alive."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self.buffer, 0, end + 2)
            stop = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < stop:
                return
            target = self.buffer[: self.buffer.find(b"\r\n")].split(b" ")[1].decode()
            body, self.buffer = self.buffer[end + 4 : stop], self.buffer[stop:]
            self.answer(target, body)

    def answer(self, target: str, body: bytes) -> None:
        if target.endswith("/sms/send/"):
            RECORD.ring(1)
            self.reply(f'{{"success": true, "data": {{"msg_uuid": "r{RECORD.count}"}}}}'.encode())
        else:
            self.reply(json.dumps(respond(target, body)).encode())

    def reply(self, body: bytes) -> None:
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        if RECORD.delay:
            asyncio.get_running_loop().call_later(RECORD.delay, self.transport.write, head + body)
        else:
            self.transport.write(head + body)


def respond(target: str, body: bytes) -> dict[str, Any]:
    """Answer what is not a plain send."""
    if target.startswith("/stub/reset"):
        RECORD.reset(float(target.partition("?")[2] or 0))
    if target.startswith("/stub/"):
        return vars(RECORD)
    if target.endswith("/sms/send/bulk/"):
        messages = json.loads(body)["messages"]
        RECORD.ring(len(messages))
        data = [{"success": True, "msg_uuid": f"r-{one['idempotency_key']}"} for one in messages]
        return {"success": True, "data": data}
    if target.endswith("/sms/delivery_report/"):
        refs = json.loads(body)["msg_uuids"]
        return {"success": True, "data": [{"msg_uuid": ref, "status": "delivered"} for ref in refs]}
    name = target.strip("/")
    features = ["bulk", "stateless"] if name == "bulk" else ["stateless"]
    return {
        "name": name,
        "types": ["sms"],
        "features": features,
        "report_after": 86400,
        "bulk_limit": 500,
    }


async def serve(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
