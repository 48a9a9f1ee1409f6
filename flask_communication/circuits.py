"""Circuits: which configurations are well, known to all workers through one row each.

A configuration that fails five times in a row, or half of the time, is paused: for 30 seconds, twice as
long each time it fails again, at most 10 minutes. Then one message is its probe. One that refuses us
(wrong password, no balance) is stopped until somebody changes it; one that asks for patience gets it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, bindparam, text
from sqlalchemy.engine import Connection

from .database import speech_of
from .errors import NotSent, OutcomeUnknown, ProviderError, Refused
from .signals import config_paused, config_resumed

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger("flask_communication")

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


class Record:
    """Counts the calls of the last minute in this process, by configuration."""

    def __init__(self) -> None:
        self._calls: dict[int, deque[tuple[float, int, int]]] = defaultdict(deque)

    def add(self, config_id: int, tally: Tally) -> bool:
        """Add a batch; tell whether too large a share of the last minute's calls has failed."""
        calls, now = self._calls[config_id], time.monotonic()
        calls.append((now, tally.ok, tally.failed))
        while calls[0][0] < now - WITHIN:
            calls.popleft()
        ok, failed = sum(one[1] for one in calls), sum(one[2] for one in calls)
        return tally.failed > 0 and ok + failed >= AT_LEAST and failed >= SHARE * (ok + failed)

    def forget(self, config_id: int) -> None:
        """Begin anew, after a circuit has changed."""
        self._calls.pop(config_id, None)


def react(circuit: Circuit, tally: Tally, too_many: bool) -> Circuit:
    """Return what a circuit becomes by what happened; pure, and the same object if nothing changes."""
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
    return replace(circuit, state=OPEN, failures=0, opens=circuit.opens + 1, left=pause, reason=reason)


def settle(
    connection: Connection, tallies: Mapping[int, Tally], record: Record, known: Mapping[int, Circuit]
) -> Changes:
    """Write down what batches say of their configurations; return (before, after) of those that changed.

    ``known`` is what this worker read last: while all goes well, nothing is written at all.
    """
    changes: Changes = []
    # In a fixed order, or two workers could wait for each other.
    for config_id, tally in sorted(tallies.items()):
        too_many = record.add(config_id, tally)
        if not _is_news(known.get(config_id), tally):
            continue
        before, version = _lock(connection, config_id)
        # Somebody has changed the configuration since it was refused.
        tally.denied = tally.denied and tally.version == version
        after = react(before, tally, too_many)
        if after is not before:
            _store(connection, after)
            changes.append((before, after))
            if after.state != before.state:
                record.forget(config_id)
    return changes


def _is_news(known: Circuit | None, tally: Tally) -> bool:
    if tally.failed or tally.denied or tally.patience is not None or tally.probed is not None:
        return True
    return known is not None and known.failures > 0


def _lock(connection: Connection, config_id: int) -> tuple[Circuit, int]:
    speech = speech_of(connection)
    connection.execute(
        text(
            "INSERT INTO communication_circuit (config_id, changed_at)"
            f" VALUES (:id, {speech.now}) ON CONFLICT (config_id) DO NOTHING"
        ),
        {"id": config_id},
    )
    lock = "FOR UPDATE OF k" if speech.name == "postgresql" else ""
    row = connection.execute(
        text(
            f"SELECT c.id, c.version, {COLUMNS}, 0 - {speech.since('k.until')} AS seconds"
            " FROM communication_circuit AS k JOIN communication_config AS c ON c.id = k.config_id"
            f" WHERE k.config_id = :id {lock}"
        ),
        {"id": config_id},
    ).one()
    return Circuit.of(row), row.version


def _store(connection: Connection, circuit: Circuit) -> None:
    speech = speech_of(connection)
    connection.execute(
        text(
            "UPDATE communication_circuit SET state = :state, failures = :failures, opens = :opens,"
            f" until = {speech.later('CAST(:left AS double precision)')}, reason = :reason,"
            f" changed_at = {speech.now} WHERE config_id = :id"
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


def take_probe(connection: Connection, config_id: int) -> bool:
    """Become the one worker that sends the probe of an open circuit, if its pause is over."""
    speech = speech_of(connection)
    taken = connection.execute(
        text(
            f"UPDATE communication_circuit SET until = {speech.later(':lease')}"
            f" WHERE config_id = :id AND state = '{OPEN}' AND until <= {speech.now}"
        ),
        {"id": config_id, "lease": PROBE_FOR},
    )
    return bool(taken.rowcount)


def close(connection: Connection, config_id: int) -> None:
    """Give a configuration another chance, because a person has changed it."""
    connection.execute(
        text(
            "UPDATE communication_circuit SET state = 'closed', failures = 0, opens = 0, until = NULL,"
            " reason = NULL, queued_until = NULL WHERE config_id = :id"
        ),
        {"id": config_id},
    )


def announce(app: Flask, changes: Sequence[tuple[Circuit, Circuit]]) -> None:
    """Log and signal every circuit that began or ended a pause."""
    for before, after in changes:
        if after.is_paused and (after.state, after.opens) != (before.state, before.opens):
            log.warning("configuration %s is %s", after.config_id, after)
            _tell(app, config_paused, after)
        elif after.is_paused and not before.is_paused:
            log.info("configuration %s is %s", after.config_id, after)
            _tell(app, config_paused, after)
        elif before.state != CLOSED and after.state == CLOSED:
            log.warning("configuration %s is well again", after.config_id)
            _tell(app, config_resumed, after)


def _tell(app: Flask, signal: Any, circuit: Circuit) -> None:
    if not signal.receivers:
        return
    try:
        with app.app_context():
            signal.send(
                app,
                config_id=circuit.config_id,
                state=circuit.state,
                seconds=circuit.left,
                reason=circuit.reason,
            )
    except Exception:
        log.exception("a receiver of %s failed for configuration %s", signal.name, circuit.config_id)
