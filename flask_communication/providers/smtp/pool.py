"""A pool of idle connections to mail servers, for the next message or page of a mailbox."""

from __future__ import annotations

import os
import threading
import time
from typing import Generic, NamedTuple, Protocol, TypeVar


class Pooled(Protocol):
    """A connection that can be pooled."""

    def is_fresh(self) -> bool:
        """Tell whether the server has neither left nor said anything since its last answer."""

    def drop(self) -> None:
        """Close the connection at once."""

    def leave(self) -> None:
        """Say goodbye as the protocol wants it, and close the connection."""


Key = TypeVar("Key")
Connection = TypeVar("Connection", bound=Pooled)


class _Idle(NamedTuple, Generic[Key, Connection]):
    since: float
    key: Key
    connection: Connection


class Pool(Generic[Key, Connection]):
    """Connections that wait up to ``keep`` seconds; the key says which server and which login.

    It serves all threads, and starts anew in the child of a fork.
    """

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # The one that came last is at the end.
        self._idle: list[_Idle[Key, Connection]] = []
        self._sweeper: threading.Timer | None = None

    def take(self, key: Key) -> Connection | None:
        """Return a connection of this key that still stands, the last used first."""
        if self._pid != os.getpid():
            # The connections belong to the parent of the fork, and so may the lock.
            self._start()
        with self._lock:
            for one in [one for one in reversed(self._idle) if one.key == key]:
                self._idle.remove(one)
                if one.since > self._oldest() and one.connection.is_fresh():
                    return one.connection
                one.connection.drop()
        return None

    def give(self, key: Key, connection: Connection) -> None:
        """Keep a connection that is ready for another command."""
        with self._lock:
            self._idle.append(_Idle(time.monotonic(), key, connection))
            self._watch()

    def _oldest(self) -> float:
        return time.monotonic() - self._keep

    def _watch(self) -> None:
        # Perhaps there is no next message, and servers count the connections that only wait.
        if self._idle and self._sweeper is None:
            wait = self._idle[0].since + self._keep - time.monotonic()
            self._sweeper = threading.Timer(max(wait, 0.0), self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        with self._lock:
            oldest = self._oldest()
            old = [one for one in self._idle if one.since <= oldest]
            self._idle = [one for one in self._idle if one.since > oldest]
            self._sweeper = None
            self._watch()
        # A server may be slow to say farewell: nobody waits for the lock meanwhile.
        for one in old:
            one.connection.leave()
