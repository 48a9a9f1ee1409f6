"""A circuit breaker for each configuration, shared by all workers through one row.

A configuration that fails five times in a row, or half of the time, is paused: for 30 seconds,
twice as long each time it fails again, at most 10 minutes. Then one message probes it. A
configuration whose provider refuses us (wrong password, no balance) is stopped until somebody
changes it. A provider that asks us to wait gets no request for as long as it asks.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from blinker import NamedSignal
from sqlalchemy import Row, bindparam, text
from sqlalchemy.engine import Connection

from ..errors import NotSent, OutcomeUnknown, ProviderError, Refused
from ..signals import config_paused, config_resumed, send
from ..storage.dialect import dialect_of

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

CLOSED, OPEN, STOPPED = "closed", "open", "stopped"
# A breaker opens at so many failures in a row, or at this ratio of failures to at least so many
# requests within a window of so many seconds.
FAILURES_IN_A_ROW = 5
FAILURE_RATIO, MIN_REQUESTS, WINDOW = 0.5, 20, 60.0
FIRST_PAUSE, MAX_PAUSE = 30.0, 600.0
# The pause after a 429 that does not say for how long.
DEFAULT_RETRY_AFTER = 5.0
# A probe that has not ended by then died with its worker: another message may probe.
PROBE_LEASE = 30.0


@dataclass(frozen=True)
class Breaker:
    """The breaker of one configuration; ``left`` is how many seconds its pause still lasts."""

    config_id: int
    state: str = CLOSED
    failures: int = 0
    opens: int = 0
    left: float | None = None
    reason: str | None = None

    @classmethod
    def of(cls, row: Row[Any]) -> Breaker:
        """Read a row with the columns of a breaker; they are NULL where nothing ever failed."""
        if row.state is None:
            return cls(row.id)
        return cls(row.id, row.state, row.failures, row.opens, row.seconds, row.reason)

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be sent now."""
        return self.state == STOPPED or (self.left is not None and self.left > 0)

    @property
    def wants_probe(self) -> bool:
        """Whether its pause is over, so that one message may probe it."""
        return self.state == OPEN and not self.is_paused

    def __str__(self) -> str:
        """Return its state as people read it."""
        if self.state == STOPPED:
            return f"stopped until it is changed: {self.reason}"
        if self.is_paused:
            return f"paused for {self.left:.0f} s more: {self.reason}"
        return f"probed: {self.reason}" if self.state == OPEN else "well"


Changes = list[tuple[Breaker, Breaker]]

# The columns of a breaker in a join with the configurations; NULL where nothing ever failed.
COLUMNS = "k.state, k.failures, k.opens, k.reason"


@dataclass
class Tally:
    """How the requests of one configuration ended in one batch."""

    version: int
    ok: int = 0
    failed: int = 0
    in_a_row: int = 0
    probed: bool | None = None
    retry_after: float | None = None
    denied: bool = False
    reason: str = ""

    def count(self, result: object, *, is_first: bool, is_probe: bool) -> None:
        """Add the outcome of one message; ``is_first`` is true for its first try.

        Only first tries count as failures in a row: one bad message that is tried again and again
        is no sign of a bad provider.
        """
        fails = isinstance(result, NotSent | OutcomeUnknown) and not asks_to_wait(result)
        if isinstance(result, ProviderError) and result.only_this:
            fails = False
        elif isinstance(result, Refused) and result.denies_us:
            self.denied, self.reason = True, result.reason
        elif asks_to_wait(result):
            assert isinstance(result, NotSent)
            self.retry_after = max(
                self.retry_after or 0.0, result.retry_after or DEFAULT_RETRY_AFTER
            )
            self.reason = self.reason or result.reason
        if fails:
            assert isinstance(result, ProviderError)
            self.failed, self.reason = self.failed + 1, result.reason
            self.in_a_row += is_first
        else:
            self.ok, self.in_a_row = self.ok + 1, 0
        if is_probe:
            self.probed = not fails


def asks_to_wait(result: object) -> bool:
    """Tell whether a provider works, and only asks for later requests."""
    return isinstance(result, NotSent) and (
        result.http_status in (425, 429) or result.retry_after is not None
    )


class Requests(NamedTuple):
    """How many requests succeeded, and how many failed."""

    ok: int = 0
    failed: int = 0

    @property
    def exceed_the_ratio(self) -> bool:
        """Whether so large a share of so many requests has failed that a pause is due."""
        total = self.ok + self.failed
        return self.failed > 0 and total >= MIN_REQUESTS and self.failed >= FAILURE_RATIO * total


class Update(NamedTuple):
    """What is added to a breaker's row: a batch, and earlier requests of this process."""

    tally: Tally
    counted: Requests


class RecentRequests:
    """The requests of the last minute that no row counts yet, by configuration."""

    def __init__(self) -> None:
        self._requests: dict[int, deque[tuple[float, Requests]]] = defaultdict(deque)

    def updates(
        self, tallies: Mapping[int, Tally], known: Mapping[int, Breaker]
    ) -> dict[int, Update]:
        """Add batches, and return what must be stored: nothing while no request fails.

        ``known`` are the breakers as this worker read them last. Call :meth:`forget` when the
        updates are stored.
        """
        for config_id, tally in tallies.items():
            self._add(config_id, Requests(tally.ok, tally.failed))
        return {
            config_id: Update(tally, self._count(config_id))
            for config_id, tally in tallies.items()
            if _must_be_stored(known.get(config_id), tally)
        }

    def _add(self, config_id: int, count: Requests) -> None:
        requests, now = self._requests[config_id], time.monotonic()
        requests.append((now, count))
        while requests[0][0] < now - WINDOW:
            requests.popleft()

    def _count(self, config_id: int) -> Requests:
        counts = [count for _, count in self._requests[config_id]]
        return Requests(sum(one.ok for one in counts), sum(one.failed for one in counts))

    def forget(self, config_ids: Iterable[int]) -> None:
        """Start again at zero for these configurations, because their rows have the counts now."""
        for config_id in config_ids:
            self._requests.pop(config_id, None)


def react(breaker: Breaker, tally: Tally, too_many: bool) -> Breaker:
    """Return the breaker after a batch; the same object if nothing changes. Pure."""
    if tally.denied:
        return replace(breaker, state=STOPPED, left=None, reason=tally.reason)
    if breaker.state == STOPPED:
        return breaker
    if breaker.state == OPEN:
        return _probed(breaker, tally)
    failures = tally.in_a_row if tally.ok else breaker.failures + tally.in_a_row
    if failures >= FAILURES_IN_A_ROW or too_many:
        return _opened(breaker, tally.reason)
    if tally.retry_after is not None:
        return replace(breaker, failures=failures, left=tally.retry_after, reason=tally.reason)
    return breaker if failures == breaker.failures else replace(breaker, failures=failures)


def _probed(breaker: Breaker, tally: Tally) -> Breaker:
    # Requests that were on their way when it opened say nothing new.
    if tally.probed is None:
        return breaker
    if not tally.probed:
        return _opened(breaker, tally.reason)
    return Breaker(breaker.config_id, left=tally.retry_after, reason=tally.reason or None)


def _opened(breaker: Breaker, reason: str) -> Breaker:
    pause = min(FIRST_PAUSE * 2**breaker.opens, MAX_PAUSE)
    return replace(
        breaker, state=OPEN, failures=0, opens=breaker.opens + 1, left=pause, reason=reason
    )


def settle(connection: Connection, updates: Mapping[int, Update]) -> Changes:
    """Store what batches say of their configurations.

    Return (before, after) of each breaker that changed.
    """
    changes: Changes = []
    # In a fixed order, or two workers could wait for each other.
    for config_id, (tally, mine) in sorted(updates.items()):
        before, version, counted = _lock(connection, config_id)
        # Somebody has changed the configuration since it was refused.
        tally.denied = tally.denied and tally.version == version
        count = Requests(counted.ok + mine.ok, counted.failed + mine.failed)
        after = react(before, tally, tally.failed > 0 and count.exceed_the_ratio)
        _keep_count(
            connection, config_id, counted, count if after.state == before.state else Requests()
        )
        if after is not before:
            _store(connection, after)
            changes.append((before, after))
    return changes


def _must_be_stored(known: Breaker | None, tally: Tally) -> bool:
    if tally.failed or tally.denied or tally.retry_after is not None or tally.probed is not None:
        return True
    return known is not None and known.failures > 0


def _lock(connection: Connection, config_id: int) -> tuple[Breaker, int, Requests]:
    dialect = dialect_of(connection)
    connection.execute(
        text(
            "INSERT INTO communication_circuit (config_id, changed_at)"
            f" VALUES (:id, {dialect.now}) ON CONFLICT (config_id) DO NOTHING"
        ),
        {"id": config_id},
    )
    lock = "FOR UPDATE OF k" if dialect.name == "postgresql" else ""
    row = connection.execute(
        text(
            f"SELECT c.id, c.version, {COLUMNS}, 0 - {dialect.since('k.until')} AS seconds,"
            f" k.counted_ok, k.counted_failed, {dialect.since('k.counted_since')} AS counted_for"
            " FROM communication_circuit AS k JOIN communication_config AS c ON c.id = k.config_id"
            f" WHERE k.config_id = :id {lock}"
        ),
        {"id": config_id},
    ).one()
    is_over = row.counted_for is None or row.counted_for > WINDOW
    return (
        Breaker.of(row),
        row.version,
        Requests() if is_over else Requests(row.counted_ok, row.counted_failed),
    )


def _keep_count(connection: Connection, config_id: int, before: Requests, count: Requests) -> None:
    """Store the counts of all workers, in a minute that begins with the first failure."""
    now = dialect_of(connection).now
    since = "counted_since" if before.failed else now
    connection.execute(
        text(
            "UPDATE communication_circuit SET counted_ok = :ok, counted_failed = :failed,"
            f" counted_since = {since} WHERE config_id = :id"
        ),
        {"id": config_id, "ok": count.ok, "failed": count.failed},
    )


def _store(connection: Connection, breaker: Breaker) -> None:
    dialect = dialect_of(connection)
    connection.execute(
        text(
            "UPDATE communication_circuit SET state = :state, failures = :failures, opens = :opens,"
            f" until = {dialect.later('CAST(:left AS double precision)')}, reason = :reason,"
            f" changed_at = {dialect.now} WHERE config_id = :id"
        ),
        {
            "id": breaker.config_id,
            "state": breaker.state,
            "failures": breaker.failures,
            "opens": breaker.opens,
            "left": breaker.left,
            "reason": breaker.reason and breaker.reason[:500],
        },
    )


def lock(connection: Connection, config_ids: Iterable[int]) -> None:
    """Lock these breakers until the transaction ends, always in the same order."""
    ids = sorted(set(config_ids))
    # SQLite has one writer at a time.
    if ids and connection.dialect.name == "postgresql":
        connection.execute(_LOCK, {"ids": ids})


_LOCK = text(
    "SELECT 1 FROM communication_circuit WHERE config_id IN :ids ORDER BY config_id FOR UPDATE"
).bindparams(bindparam("ids", expanding=True))


def paused(connection: Connection) -> list[dict[str, Any]]:
    """Return the breakers that are paused, stopped or waiting for a probe, for the health check."""
    rows = connection.execute(
        text(
            f"SELECT k.config_id AS id, {COLUMNS},"
            f" 0 - {dialect_of(connection).since('k.until')} AS seconds"
            " FROM communication_circuit AS k JOIN communication_config AS c ON c.id = k.config_id"
            " WHERE c.deleted_at IS NULL ORDER BY k.config_id"
        )
    )
    found = [one for one in map(Breaker.of, rows) if one.state != CLOSED or one.is_paused]
    return [
        {
            "config_id": one.config_id,
            "state": one.state,
            "seconds": None if one.left is None else max(0.0, round(one.left, 1)),
            "reason": one.reason,
        }
        for one in found
    ]


def take_probe(connection: Connection, config_id: int) -> bool:
    """Tell whether this worker may send the one probe of an open breaker whose pause is over."""
    dialect = dialect_of(connection)
    taken = connection.execute(
        text(
            f"UPDATE communication_circuit SET until = {dialect.later(':lease')}"
            f" WHERE config_id = :id AND state = '{OPEN}' AND until <= {dialect.now}"
        ),
        {"id": config_id, "lease": PROBE_LEASE},
    )
    return bool(taken.rowcount)


def close(connection: Connection, config_id: int) -> Changes:
    """Close the breaker of a configuration that a person has changed; return what changed."""
    before, _, _ = _lock(connection, config_id)
    connection.execute(
        text(
            "UPDATE communication_circuit SET state = 'closed', failures = 0, opens = 0, until = "
            "NULL, reason = NULL, queued_until = NULL, counted_since = NULL WHERE config_id = :id"
        ),
        {"id": config_id},
    )
    return [(before, Breaker(config_id))]


def announce(app: Flask, changes: Sequence[tuple[Breaker, Breaker]]) -> None:
    """Log and signal each breaker whose pause began or ended."""
    for before, after in changes:
        if after.is_paused and (after.state, after.opens) != (before.state, before.opens):
            log.warning("configuration %s is %s", after.config_id, after)
            _send(app, config_paused, after)
        elif after.is_paused and not before.is_paused:
            log.info("configuration %s is %s", after.config_id, after)
            _send(app, config_paused, after)
        elif before.state != CLOSED and after.state == CLOSED:
            log.warning("configuration %s is well again", after.config_id)
            _send(app, config_resumed, after)


def _send(app: Flask, signal: NamedSignal, breaker: Breaker) -> None:
    send(
        app,
        signal,
        config_id=breaker.config_id,
        state=breaker.state,
        seconds=breaker.left,
        reason=breaker.reason,
    )
