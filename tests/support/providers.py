"""Providers that do what a test says, and count what they were given."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask_communication.providers.base import (
    Accepted,
    OutboundSMS,
    Provider,
    ProviderError,
    Report,
    ReportStatus,
)

Answer = Callable[[OutboundSMS], Accepted]


def raising(failure: Exception) -> Answer:
    """Return an answer that raises."""

    def answer(_sms: OutboundSMS) -> Accepted:
        raise failure

    return answer


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
        self.reports: dict[str, ReportStatus] = {}
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
