"""A pool of open SMTP connections, by server and account."""

from __future__ import annotations

import os
import threading
import time

from .smtp_session import Door, Session


class ConnectionPool:
    """Open SMTP connections that wait for the next message."""

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[tuple[float, Session]] = []
        self._sweeper: threading.Timer | None = None

    def take(self, door: Door) -> Session | None:
        """Return an open connection to this server and account, the last used first; or None."""
        if self._pid != os.getpid():
            # Those of the parent of a fork are the parent's, and so may be the lock.
            self._start()
        with self._lock:
            mine = [one for one in self._idle if one[1].door == door]
            self._idle = [one for one in self._idle if one[1].door != door]
            while mine:
                _, session = mine.pop()
                if session.is_fresh():
                    self._idle = mine + self._idle
                    self._idle.sort(key=lambda one: one[0])
                    return session
                session.close()
        return None

    def give(self, session: Session) -> None:
        """Keep a connection, or close it if it is of no more use."""
        if not session.usable:
            session.close()
            return
        with self._lock:
            self._idle.append((time.monotonic(), session))
            self._watch()

    def _watch(self) -> None:
        # The next message may never come, and servers limit idle connections.
        if self._idle and self._sweeper is None:
            wait = self._idle[0][0] + self._keep - time.monotonic()
            self._sweeper = threading.Timer(max(wait, 0.0), self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        with self._lock:
            old = time.monotonic() - self._keep
            for _, session in (one for one in self._idle if one[0] <= old):
                session.quit()
            self._idle = [one for one in self._idle if one[0] > old]
            self._sweeper = None
            self._watch()
