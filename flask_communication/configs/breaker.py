"""Circuits: which configurations are well, known to all workers through one row each.

A configuration that fails five times in a row, or half of the time, is paused: for 30 seconds,
twice as long each time it fails again, at most 10 minutes. Then one message is its probe. One that
refuses us (wrong password, no balance) is stopped until somebody changes it; one that asks for
patience gets it.
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
# So many failures in a row open a circuit; or this share of so many calls within so many seconds.
IN_A_ROW = 5
SHARE, AT_LEAST, WITHIN = 0.5, 20, 60.0
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 600.0
# What a provider gets that says 429 and not for how long.
PATIENCE = 5.0
# A probe that has not ended by then died with its worker: another one may go.
PROBE_FOR = 30.0


@dataclass(frozen=True)
class Circuit:
    """What is known of one configuration; ``left`` is the seconds its pause still lasts."""

    config_id: int
    state: str = CLOSED
    failures: int = 0
    opens: int = 0
    left: float | None = None
    reason: str | None = None

    @classmethod
    def of(cls, row: Row[Any]) -> Circuit:
        """Read a row that has the circuit's columns, NULL where nothing is known yet."""
        if row.state is None:
            return cls(row.id)
        return cls(row.id, row.state, row.failures, row.opens, row.seconds, row.reason)

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be sent now."""
        return self.state == STOPPED or (self.left is not None and self.left > 0)

    @property
    def wants_probe(self) -> bool:
        """Whether its pause is over, and one message may find out."""
        return self.state == OPEN and not self.is_paused

    def __str__(self) -> str:
        """Say it for a person."""
        if self.state == STOPPED:
            return f"stopped until it is changed: {self.reason}"
        if self.is_paused:
            return f"paused for {self.left:.0f} s more: {self.reason}"
        return f"probed: {self.reason}" if self.state == OPEN else "well"


Changes = list[tuple[Circuit, Circuit]]

# To be joined to the configurations: NULLs where a configuration never had any trouble.
COLUMNS = "k.state, k.failures, k.opens, k.reason"


@dataclass
class Tally:
    """How the calls by one configuration ended in one batch."""

    version: int
    ok: int = 0
    failed: int = 0
    in_a_row: int = 0
    probed: bool | None = None
    patience: float | None = None
    denied: bool = False
    reason: str = ""

    def count(self, result: object, *, is_first: bool, is_probe: bool) -> None:
        """Add one outcome; ``is_first`` for a message's first try.

        Only first tries count as "in a row": one bad message that is tried again and again must not
        look like a provider that fails everybody.
        """
        fails = isinstance(result, NotSent | OutcomeUnknown) and not asks_for_patience(result)
        if isinstance(result, ProviderError) and result.only_this:
            fails = False
        elif isinstance(result, Refused) and result.denies_us:
            self.denied, self.reason = True, result.reason
        elif asks_for_patience(result):
            assert isinstance(result, NotSent)
            self.patience = max(self.patience or 0.0, result.retry_after or PATIENCE)
            self.reason = self.reason or result.reason
        if fails:
            assert isinstance(result, ProviderError)
            self.failed, self.reason = self.failed + 1, result.reason
            self.in_a_row += is_first
        else:
            self.ok, self.in_a_row = self.ok + 1, 0
        if is_probe:
            self.probed = not fails


def asks_for_patience(result: object) -> bool:
    """Tell whether a provider is well, and only wants to be called later."""
    return isinstance(result, NotSent) and (
        result.http_status in (425, 429) or result.retry_after is not None
    )


class Count(NamedTuple):
    """How many calls went well, and how many failed."""

    ok: int = 0
    failed: int = 0

    @property
    def is_too_much(self) -> bool:
        """Whether so large a share of so many calls has failed that a pause is due."""
        total = self.ok + self.failed
        return self.failed > 0 and total >= AT_LEAST and self.failed >= SHARE * total


class News(NamedTuple):
    """What all workers must know of one configuration: how a batch ended, and what preceded it here."""

    tally: Tally
    counted: Count


class Record:
    """Counts the calls of the last minute that this process has not told the others of, by configuration."""

    def __init__(self) -> None:
        self._calls: dict[int, deque[tuple[float, Count]]] = defaultdict(deque)

    def news(self, tallies: Mapping[int, Tally], known: Mapping[int, Circuit]) -> dict[int, News]:
        """Add batches; return what must be written down of them, while all goes well nothing.

        ``known`` is what this worker read last. See :meth:`forget`.
        """
        for config_id, tally in tallies.items():
            self._add(config_id, Count(tally.ok, tally.failed))
        return {
            config_id: News(tally, self._count(config_id))
            for config_id, tally in tallies.items()
            if _is_news(known.get(config_id), tally)
        }

    def _add(self, config_id: int, count: Count) -> None:
        calls, now = self._calls[config_id], time.monotonic()
        calls.append((now, count))
        while calls[0][0] < now - WITHIN:
            calls.popleft()

    def _count(self, config_id: int) -> Count:
        calls = self._calls[config_id]
        return Count(sum(one.ok for _, one in calls), sum(one.failed for _, one in calls))

    def forget(self, config_ids: Iterable[int]) -> None:
        """Begin anew with these, because all can read what was counted."""
        for config_id in config_ids:
            self._calls.pop(config_id, None)


def react(circuit: Circuit, tally: Tally, too_many: bool) -> Circuit:
    """Return what a circuit becomes by what happened.

    Pure, and the same object if nothing changes.
    """
    if tally.denied:
        return replace(circuit, state=STOPPED, left=None, reason=tally.reason)
    if circuit.state == STOPPED:
        return circuit
    if circuit.state == OPEN:
        return _probed(circuit, tally)
    failures = tally.in_a_row if tally.ok else circuit.failures + tally.in_a_row
    if failures >= IN_A_ROW or too_many:
        return _opened(circuit, tally.reason)
    if tally.patience is not None:
        return replace(circuit, failures=failures, left=tally.patience, reason=tally.reason)
    return circuit if failures == circuit.failures else replace(circuit, failures=failures)


def _probed(circuit: Circuit, tally: Tally) -> Circuit:
    # Calls that were on their way when it opened say nothing new.
    if tally.probed is None:
        return circuit
    if not tally.probed:
        return _opened(circuit, tally.reason)
    return Circuit(circuit.config_id, left=tally.patience, reason=tally.reason or None)


def _opened(circuit: Circuit, reason: str) -> Circuit:
    pause = min(FIRST_PAUSE * 2**circuit.opens, LONGEST_PAUSE)
    return replace(
        circuit, state=OPEN, failures=0, opens=circuit.opens + 1, left=pause, reason=reason
    )


def settle(connection: Connection, news: Mapping[int, News]) -> Changes:
    """Write down what batches say of their configurations.

    Return (before, after) of those that changed.
    """
    changes: Changes = []
    # In a fixed order, or two workers could wait for each other.
    for config_id, (tally, mine) in sorted(news.items()):
        before, version, counted = _lock(connection, config_id)
        # Somebody has changed the configuration since it was refused.
        tally.denied = tally.denied and tally.version == version
        count = Count(counted.ok + mine.ok, counted.failed + mine.failed)
        after = react(before, tally, tally.failed > 0 and count.is_too_much)
        _keep_count(
            connection, config_id, counted, count if after.state == before.state else Count()
        )
        if after is not before:
            _store(connection, after)
            changes.append((before, after))
    return changes


def _is_news(known: Circuit | None, tally: Tally) -> bool:
    if tally.failed or tally.denied or tally.patience is not None or tally.probed is not None:
        return True
    return known is not None and known.failures > 0


def _lock(connection: Connection, config_id: int) -> tuple[Circuit, int, Count]:
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
    is_over = row.counted_for is None or row.counted_for > WITHIN
    return (
        Circuit.of(row),
        row.version,
        Count() if is_over else Count(row.counted_ok, row.counted_failed),
    )


def _keep_count(connection: Connection, config_id: int, before: Count, count: Count) -> None:
    """Store what all workers have counted, in a minute that begins with the first failure."""
    now = dialect_of(connection).now
    since = "counted_since" if before.failed else now
    connection.execute(
        text(
            "UPDATE communication_circuit SET counted_ok = :ok, counted_failed = :failed,"
            f" counted_since = {since} WHERE config_id = :id"
        ),
        {"id": config_id, "ok": count.ok, "failed": count.failed},
    )


def _store(connection: Connection, circuit: Circuit) -> None:
    dialect = dialect_of(connection)
    connection.execute(
        text(
            "UPDATE communication_circuit SET state = :state, failures = :failures, opens = :opens,"
            f" until = {dialect.later('CAST(:left AS double precision)')}, reason = :reason,"
            f" changed_at = {dialect.now} WHERE config_id = :id"
        ),
        {
            "id": circuit.config_id,
            "state": circuit.state,
            "failures": circuit.failures,
            "opens": circuit.opens,
            "left": circuit.left,
            "reason": circuit.reason and circuit.reason[:500],
        },
    )


def lock(connection: Connection, config_ids: Iterable[int]) -> None:
    """Keep these circuits for the rest of this transaction, in the order in which everybody does."""
    ids = sorted(set(config_ids))
    # SQLite has one writer at a time.
    if ids and connection.dialect.name == "postgresql":
        connection.execute(_LOCK, {"ids": ids})


_LOCK = text(
    "SELECT 1 FROM communication_circuit WHERE config_id IN :ids ORDER BY config_id FOR UPDATE"
).bindparams(bindparam("ids", expanding=True))


def paused(connection: Connection) -> list[dict[str, Any]]:
    """Return the circuits that are not closed, or ask for patience, for a person."""
    rows = connection.execute(
        text(
            f"SELECT k.config_id AS id, {COLUMNS}, 0 - {dialect_of(connection).since('k.until')} AS "
            "seconds FROM communication_circuit AS k JOIN communication_config AS c ON c.id = "
            "k.config_id WHERE c.deleted_at IS NULL ORDER BY k.config_id"
        )
    )
    found = [one for one in map(Circuit.of, rows) if one.state != CLOSED or one.is_paused]
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
    """Become the one worker that sends the probe of an open circuit, if its pause is over."""
    dialect = dialect_of(connection)
    taken = connection.execute(
        text(
            f"UPDATE communication_circuit SET until = {dialect.later(':lease')}"
            f" WHERE config_id = :id AND state = '{OPEN}' AND until <= {dialect.now}"
        ),
        {"id": config_id, "lease": PROBE_FOR},
    )
    return bool(taken.rowcount)


def close(connection: Connection, config_id: int) -> Changes:
    """Give a configuration another chance, because a person has changed it; return what changed."""
    before, _, _ = _lock(connection, config_id)
    connection.execute(
        text(
            "UPDATE communication_circuit SET state = 'closed', failures = 0, opens = 0, until = "
            "NULL, reason = NULL, queued_until = NULL, counted_since = NULL WHERE config_id = :id"
        ),
        {"id": config_id},
    )
    return [(before, Circuit(config_id))]


def announce(app: Flask, changes: Sequence[tuple[Circuit, Circuit]]) -> None:
    """Log and signal every circuit that began or ended a pause."""
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


def _send(app: Flask, signal: NamedSignal, circuit: Circuit) -> None:
    send(
        app,
        signal,
        config_id=circuit.config_id,
        state=circuit.state,
        seconds=circuit.left,
        reason=circuit.reason,
    )
