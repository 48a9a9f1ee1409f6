"""Idle connections are reused while they stand, and closed in time."""

from __future__ import annotations

import os
import time

import pytest

from flask_communication.providers.smtp.pool import Pool


class Connection:
    """A connection that says what was done with it."""

    def __init__(self, *, fresh: bool = True) -> None:
        self.fresh = fresh
        self.ended = ""

    def is_fresh(self) -> bool:
        return self.fresh

    def drop(self) -> None:
        self.ended = "dropped"

    def leave(self) -> None:
        self.ended = "left"


def test_the_connection_that_was_used_last_is_taken_first() -> None:
    pool: Pool[str, Connection] = Pool(30)
    first, second = Connection(), Connection()
    pool.give("a", first)
    pool.give("a", second)
    assert [pool.take("a"), pool.take("a"), pool.take("a")] == [second, first, None]


def test_a_connection_is_not_given_to_another_login() -> None:
    pool: Pool[str, Connection] = Pool(30)
    pool.give("a", Connection())
    assert pool.take("b") is None
    assert pool.take("a") is not None


def test_a_connection_that_the_server_has_closed_is_dropped() -> None:
    pool: Pool[str, Connection] = Pool(30)
    stands, closed = Connection(), Connection(fresh=False)
    pool.give("a", stands)
    pool.give("a", closed)
    assert pool.take("a") is stands
    assert (closed.ended, stands.ended) == ("dropped", "")


def test_a_connection_that_waits_too_long_is_left_without_a_next_message() -> None:
    pool: Pool[str, Connection] = Pool(0.05)
    old = Connection()
    pool.give("a", old)
    for _ in range(500):
        if old.ended:
            break
        time.sleep(0.01)
    assert old.ended == "left"
    assert pool.take("a") is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_takes_no_connection_of_its_parent() -> None:
    pool: Pool[str, Connection] = Pool(30)
    pool.give("a", Connection())
    child = os.fork()
    if child == 0:
        os._exit(pool.take("a") is not None)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.take("a") is not None
