"""The limits: raw asyncio sockets with no guarantee at all, and the rows with no HTTP at all.

``python -m benchmarks.limits raw`` works off the table of the peers: it claims 500 rows, sends 100
at once over sockets that stay open, and settles them with one statement. ``… rows`` claims, starts
and settles our own messages with all guarantees and calls nobody.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import bindparam, text

CLAIM = 500
AT_ONCE = 100


class Caller(asyncio.Protocol):
    """One open connection that sends what is left, one after the other."""

    def __init__(self, done: dict[int, str]) -> None:
        self.done = done
        self.buffer = b""
        self.todo: list[tuple[int, bytes]] = []
        self.finished: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def begin(self, todo: list[tuple[int, bytes]]) -> asyncio.Future[None]:
        self.todo = todo
        self.finished = asyncio.get_running_loop().create_future()
        self.next()
        return self.finished

    def next(self) -> None:
        if not self.todo:
            assert self.finished is not None
            self.finished.set_result(None)
            return
        self.current, request = self.todo.pop()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.rpartition(b"Content-Length: ")[2].split(b"\r")[0]):
            return
        self.buffer = b""
        self.done[self.current] = json.loads(body)["data"]["msg_uuid"]
        self.next()


def request_of(row: Any, path: str) -> bytes:
    """Write one request."""
    body = json.dumps(
        {"msg": row.msg, "destination": row.destination, "config": {"sender": "BENCH"}}
    ).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: stub\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def raw() -> None:
    """Work off the table as fast as sockets allow."""
    from .peers import engine

    where = urlsplit(os.environ["BENCH_STUB"])
    loop = asyncio.get_running_loop()
    done: dict[int, str] = {}
    callers = [
        (await loop.create_connection(lambda: Caller(done), where.hostname, where.port))[1]
        for _ in range(AT_ONCE)
    ]
    claim = text(
        "UPDATE work SET status = 'sending' WHERE id IN (SELECT id FROM work WHERE status = "
        f"'queued' LIMIT {CLAIM}) RETURNING id, destination, msg"
    )
    settle = text("UPDATE work SET status = 'sent' WHERE id IN :ids").bindparams(
        bindparam("ids", expanding=True)
    )
    while True:
        with engine().begin() as connection:
            rows = connection.execute(claim).all()
        if not rows:
            return
        todo = [(row.id, request_of(row, where.path + "/sms/send/")) for row in rows]
        await asyncio.gather(*(caller.begin(todo) for caller in callers))
        with engine().begin() as connection:
            connection.execute(settle, {"ids": list(done)})
        done.clear()


def rows() -> None:
    """Claim, start and settle our messages with nothing between; print messages a second."""
    from flask_communication.configs.routes import Routes
    from flask_communication.configs.state import state_of
    from flask_communication.delivery import outbox, outcomes
    from flask_communication.providers.base import Accepted

    from .host import create_app

    state = state_of(create_app())
    routes = Routes(state)
    number, begun = 0, time.monotonic()
    while True:
        with state.database.write() as connection:
            claimed = outbox.claim(connection, CLAIM)
            known = routes.load(connection, {one.config_id for one in claimed})
        if not claimed:
            break
        sent = [outcomes.Dispatch(one, known[one.config_id or 0], 0.0) for one in claimed]
        with state.database.write() as connection:
            outbox.start(connection, [outcomes.starting(one) for one in sent])
        answers = [Accepted(f"r-{one.claim.key}") for one in sent]
        with state.database.write() as connection:
            pairs = zip(sent, answers, strict=True)
            outbox.settle(connection, [outcomes.settlement(*pair, 0.0) for pair in pairs])
        number += len(claimed)
    print(number / (time.monotonic() - begun))


if __name__ == "__main__":
    if sys.argv[1] == "raw":
        asyncio.run(raw())
    else:
        rows()
