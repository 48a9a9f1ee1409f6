"""Metrics in the text format of Prometheus; they need the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from ...configs.state import State
from ...storage.dialect import dialect_of
from ...storage.models import ANY_PRIORITY, PRIORITIES
from ..worker import heartbeat
from . import health

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def expose(state: State) -> bytes:
    """Return the metrics of an application; raise ImportError without ``prometheus_client``."""
    from prometheus_client import CollectorRegistry, generate_latest

    # Never the global registry: an application may have its own things there, and several of us.
    registry = CollectorRegistry()
    registry.register(_Collector(state))
    return generate_latest(registry)


class _Collector:
    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        with self._state.database.read() as connection:
            yield from _backlog(connection)
            yield from _workers(connection)
            yield _breakers(connection)
        yield _messages(self._state)


def _gauge(name: str, says: str, labels: tuple[str, ...] = ()) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"communication_{name}", says, labels=labels)


def _backlog(connection: Connection) -> Iterator[Metric]:
    due = _gauge(
        "due_messages", "Messages whose time has come, and nobody has attended yet.", ("priority",)
    )
    age = _gauge("oldest_due_seconds", "How long the oldest of them has been due.", ("priority",))
    dialect = dialect_of(connection)
    rows = connection.execute(
        text(
            f"SELECT priority, count(*) AS due, {dialect.since('min(due_at)')} AS age"
            " FROM communication_message WHERE status IN ('queued', 'sending')"
            f" AND {ANY_PRIORITY} AND due_at <= {dialect.now} GROUP BY priority"
        )
    )
    found = {row.priority: row for row in rows}
    for name, priority in PRIORITIES.items():
        row = found.get(priority)
        due.add_metric((name,), row.due if row else 0)
        age.add_metric((name,), row.age if row else 0)
    yield due
    yield age


def _workers(connection: Connection) -> Iterator[Metric]:
    alive = _gauge("workers", "Processes that attended in the last minute.")
    ago = _gauge("worker_seen_seconds", "How long ago a process was last seen.", ("host", "pid"))
    seen = heartbeat.seen(connection)
    alive.add_metric((), sum(one.ago < heartbeat.ALIVE_FOR for one in seen))
    for one in seen:
        ago.add_metric((one.host, str(one.pid)), one.ago)
    yield alive
    yield ago


def _breakers(connection: Connection) -> Metric:
    paused = _gauge(
        "config_paused",
        "1 while nothing is sent by a configuration, else 0; by the state of its breaker.",
        ("config", "key", "state"),
    )
    for one in health.breakers(connection):
        breaker = one.breaker
        paused.add_metric(
            (str(breaker.config_id), one.key or "", breaker.state), int(breaker.is_paused)
        )
    return paused  # type: ignore[no-any-return]


def _messages(state: State) -> Metric:
    gauge = _gauge(
        "messages",
        "Messages in the table, by channel, configuration and status; counted once a minute.",
        ("channel", "config", "status"),
    )
    for channel, config_id, status, count in health.count_messages(state):
        gauge.add_metric((channel, str(config_id or ""), status), count)
    return gauge  # type: ignore[no-any-return]
