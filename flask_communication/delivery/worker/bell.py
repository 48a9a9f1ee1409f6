"""The bell: it wakes workers through Redis. A ring carries no message."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...configs.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

JOB = "flask_communication.jobs.attend"
# One ring serves all messages until a worker answers it, or until it must have been lost.
RING_FOR_MS = 2000
# Accepting a message waits for Redis no longer than this in all (connect, then read), and after a
# failure not at all.
CONNECT_TIMEOUT = 0.12
READ_TIMEOUT = 0.08
SILENT_FOR = 30.0
# A job works for less than this. RQ ends it at JOB_TIMEOUT, which must not happen during a request.
JOB_BUDGET = 25.0
JOB_TIMEOUT = 180
TICK_EVERY = 15.0
# How long one wait for a ring lasts: a worker that is stopped ends within this time.
HEAR_FOR = 0.5


class Bell:
    """Wakes the workers of one queue; never raises, and never waits for long."""

    def __init__(self, settings: Settings) -> None:
        assert settings.redis_url is not None
        self._url = settings.redis_url
        self._name = settings.queue
        self._redis: Redis | None = None
        self._queue: Any = None
        self._silent_until = 0.0

    def connect(self) -> Redis:
        """Open a connection to Redis that gives up soon."""
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return Redis.from_url(
            self._url,
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=READ_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )

    def prepare(self) -> None:
        """Import RQ now, so that no web request waits for it at the first ring."""
        from rq import Queue

        self._redis = self.connect()
        self._queue = Queue(self._name, connection=self._redis)

    def ring(self) -> None:
        """Put a job into the queue, unless one is there that no worker has answered yet."""
        if time.monotonic() < self._silent_until:
            return
        try:
            self._ring()
        except Exception as failure:
            # A fault of Redis must not fail the sender: workers also look by themselves.
            self._silent_until = time.monotonic() + SILENT_FOR
            log.warning(
                "cannot ring for a worker (%s); messages wait until one looks by itself. Trying "
                "again in %.0f s",
                type(failure).__name__,
                SILENT_FOR,
            )

    def _ring(self) -> None:
        if self._queue is None:
            self.prepare()
        assert self._redis is not None
        if self._redis.set(self._flag("bell"), 1, nx=True, px=RING_FOR_MS):
            # Our own workers hear this at once; a job reaches RQ's workers too, and cannot be
            # missed.
            self._redis.publish(self._flag("bell"), b"")
            self._queue.enqueue(JOB, job_timeout=JOB_TIMEOUT, result_ttl=0, failure_ttl=3600)

    def hear(self, wake: Callable[[], None], ended: threading.Event) -> None:
        """Call ``wake`` at every ring, until ``ended``.

        Raises :class:`RedisError` or OSError when Redis is away.

        It is faster than the job that comes with each ring, and may miss one; the job does not.
        """
        with self.connect().pubsub() as hearing:  # type: ignore[no-untyped-call]
            hearing.subscribe(self._flag("bell"))
            while not ended.is_set():
                told = hearing.get_message(timeout=HEAR_FOR)
                if told is not None and told["type"] == "message":
                    wake()

    def answer(self) -> None:
        """Take back the ring, because a worker is about to look; later messages need a new one."""
        try:
            if self._redis is None:
                self.prepare()
            assert self._redis is not None
            self._redis.delete(self._flag("bell"))
        except Exception:
            log.debug("cannot answer the bell", exc_info=True)

    def may_tick(self) -> bool:
        """Tell whether it is this process's turn to look for overdue work."""
        try:
            if self._redis is None:
                self.prepare()
            assert self._redis is not None
            period = int(TICK_EVERY * 1000) - 500
            return bool(self._redis.set(self._flag("tick"), 1, nx=True, px=period))
        except Exception:
            return False

    def _flag(self, name: str) -> str:
        return f"communication:{name}:{self._name}"
