"""What several test files need: providers that behave as told, and shortcuts to their configurations."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flask import Flask
from sqlalchemy import event, text

from flask_communication.configs import store
from flask_communication.configs.state import State, state_of
from flask_communication.delivery.worker.worker import Worker
from flask_communication.providers.base import (
    Accepted,
    OutboundSMS,
    Provider,
    ProviderError,
    Report,
)

Answer = Callable[[OutboundSMS], Accepted]


class Scripted(Provider):
    """A provider that counts what rang, and answers as the test says."""

    name = "scripted"

    def __init__(self, answer: Answer | None = None, *, window: float = 0.0) -> None:
        self.answer = answer
        self.idempotency_window = window
        self.report_after = 60.0
        self.calls: list[OutboundSMS] = []
        self.rang: Counter[str] = Counter()
        self.retried: list[str | None] = []
        self.reports: dict[str, str] = {}
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        with self._lock:
            self.calls.append(sms)
        if self.answer is not None:
            return self.answer(sms)
        return self.ring(sms)

    def ring(self, sms: OutboundSMS) -> Accepted:
        """Ring, unless this key has rung already and we promise to ignore repeats."""
        with self._lock:
            if not (self.idempotency_window and self.rang[sms.key]):
                self.rang[sms.key] += 1
        return Accepted(f"ref-{sms.key}")

    def retry_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        self.retried.append(sms.provider_ref)
        return Accepted(sms.provider_ref or "none")

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        self.asked += refs
        return [Report(ref, self.reports[ref]) for ref in refs if ref in self.reports]


class Bulky(Scripted):
    """The same, with many messages a call."""

    name = "bulky"
    features = frozenset({"bulk"})
    bulk_limit = 100

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        self.batches.append(len(batch))
        return [self.ring(sms) for sms in batch]


def install(app: Flask, provider: Provider, **fields: Any) -> int:
    """Make a provider known to an application and give it a configuration; return its id."""
    state = state_of(app)
    state.registry.register(provider)
    return store.create(
        state,
        {"type": "sms", "provider": "", "provider_pkg_name": provider.name, "config": {}, **fields},
    )


def work(app: Flask, **kwargs: Any) -> int:
    """Do all that is due now, in this thread."""
    with app.app_context():
        return Worker(state_of(app)).burst(**kwargs)


@contextmanager
def statements_of(app: Flask) -> Iterator[list[str]]:
    """Give a list that fills with the SQL of our own transactions, as long as the block lasts."""
    said: list[str] = []

    def hear(conn: Any, cursor: Any, statement: str, *more: Any) -> None:
        said.append(statement)

    engine = state_of(app).database.engine
    event.listen(engine, "before_cursor_execute", hear)
    try:
        yield said
    finally:
        event.remove(engine, "before_cursor_execute", hear)


def count_statuses(app: Flask) -> dict[str, int]:
    """Count the messages of each status."""
    with state_of(app).database.read() as connection:
        return dict(Counter(connection.scalars(text("SELECT status FROM communication_message"))))


def make_due(app: Flask, **columns: Any) -> None:
    """Let the time of every open message have come; set other columns besides."""
    state: State = state_of(app)
    sets = ", ".join(["due_at = '2020-01-01 00:00:00.000000'", *(f"{k} = :{k}" for k in columns)])
    with state.database.write() as connection:
        connection.execute(
            text(f"UPDATE communication_message SET {sets} WHERE due_at IS NOT NULL"), columns
        )
