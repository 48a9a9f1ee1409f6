"""What follows from what happened: pure decisions about one message, as rows the outbox writes."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from ..configs.routes import Route
from ..configs.settings import Settings
from ..errors import NotSent, ProviderError, Refused
from ..formats import addresses
from ..formats.text import clean
from ..providers.base import Accepted, OutboundSMS
from ..storage.models import status

# Seconds until the next try of a message that was not sent, by number of tries; the last one
# repeats.
BACKOFF = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
# Email may be later, and its servers are asked for patience more often (greylisting).
EMAIL_BACKOFF = (10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)
# The same for a message in doubt, at a provider that ignores repeats.
REPEATS = (1.0, 5.0, 30.0, 120.0)
JITTER = 0.2
MAX_RETRY_AFTER = 3600.0
# Of the provider's window only this share is used: its clock is not ours.
WINDOW_SHARE = 0.8
# After so many workers that stopped while sending it, a message is a person's.
POISON = 3

Verdict = dict[str, Any]
Result = Accepted | ProviderError


@dataclass(frozen=True)
class Wait:
    """Why, and for how many seconds, a message cannot go now."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class Order:
    """A claimed message, the route it goes by, and when it was claimed (monotonic seconds).

    ``family`` is how many routes it may go by in turn, ``others`` how many of them are still to be
    tried before a pause. ``wait`` says that it cannot go now; ``is_probe`` that it finds out
    whether a paused configuration is well again.
    """

    row: Row[Any]
    route: Route
    claimed: float
    family: int = 1
    others: int = 0
    wait: Wait | None = None
    is_probe: bool = False

    @property
    def key(self) -> str:
        """The idempotency key; it changes only when a person decides to send again."""
        resends = self.row.resends
        return str(self.row.uuid) if not resends else f"{self.row.uuid}#{resends + 1}"

    @property
    def in_doubt(self) -> bool:
        """Whether an earlier try may have arrived."""
        return self.row.repeat_until is not None

    @property
    def is_retry(self) -> bool:
        """Whether the provider knows the message already, under an id of its own."""
        return bool(self.row.provider_ref and self.row.resends)

    def sms(self, destination: str) -> OutboundSMS:
        """Return what the provider is given."""
        row = self.row
        meta = json.loads(row.meta) if isinstance(row.meta, str) else row.meta
        return OutboundSMS(
            key=self.key,
            destination=destination,
            msg=row.body,
            sender=row.sender,
            provider_ref=row.provider_ref if self.is_retry else None,
            metadata=meta or {},
        )


def starting(order: Order) -> Verdict:
    """Say that a message is about to be dialled."""
    return {
        "id": order.row.id,
        "fence": order.row.fence,
        "config_id": order.route.config_id,
        "key": order.key,
    }


def ending(order: Order, result: Result, elapsed: float) -> Verdict:
    """Say how a call ended, ``elapsed`` seconds after the claim."""
    if isinstance(result, Accepted):
        return _accepted(order, result)
    if isinstance(result, NotSent):
        return _not_sent(order, result)
    denied = isinstance(result, Refused) and result.denies_us
    if denied and order.others and not order.in_doubt:
        return _row(order, status.QUEUED, status.REFUSED, 0.0, result)
    # Who is refused for its password learns nothing about the earlier try.
    if isinstance(result, Refused) and not (denied and order.in_doubt):
        return _row(order, status.REJECTED, status.REFUSED, None, result)
    return _unknown(order, result, (order.row.age or 0.0) + elapsed)


def _row(
    order: Order,
    moved_to: str,
    state: str,
    delay: float | None,
    failure: ProviderError | None = None,
) -> Verdict:
    return {
        "id": order.row.id,
        "fence": order.row.fence,
        "uuid": order.row.uuid,
        "channel": order.row.channel,
        "status": moved_to,
        "state": state,
        "delay": delay,
        "repeat_for": None,
        "ref": None,
        "extra": None,
        "error": failure and clean(failure.reason),
        "code": failure and failure.code and clean(failure.code, 50),
        "http_status": failure and failure.http_status,
    }


def _accepted(order: Order, result: Accepted) -> Verdict:
    assert order.route.provider is not None
    row = _row(order, status.SENT, status.ACCEPTED, float(order.route.provider.report_after))
    return row | {"ref": clean(result.ref, 255), "extra": dict(result.extra) or None}


def _not_sent(order: Order, failure: NotSent) -> Verdict:
    if order.others:
        # It certainly did not leave: a fallback may try at once.
        return _row(order, status.QUEUED, status.NOT_SENT, 0.0, failure)
    steps = EMAIL_BACKOFF if order.row.channel == "email" else BACKOFF
    delay = _jittered(_step(steps, order.row.tries // order.family))
    if failure.retry_after is not None:
        delay = max(delay, min(failure.retry_after, MAX_RETRY_AFTER))
    return _row(order, status.QUEUED, status.NOT_SENT, delay, failure)


def _unknown(order: Order, failure: ProviderError, age: float) -> Verdict:
    left = order.route.window * WINDOW_SHARE - age
    if left <= 0:
        return _row(order, status.UNKNOWN, status.CANNOT_KNOW, None, failure)
    delay = min(_jittered(_step(REPEATS, order.row.tries)), left)
    return _row(order, status.QUEUED, status.CANNOT_KNOW, delay, failure) | {"repeat_for": left}


def _step(steps: tuple[float, ...], tries: int) -> float:
    return steps[min(tries, len(steps) - 1)]


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)


def dismissal(order: Order, settings: Settings) -> Verdict | None:
    """Say why a claimed message is not dialled at all, or None if it is."""
    row, reason = order.row, order.route.blocked
    if order.in_doubt and (row.closed or row.stale):
        told = "an earlier try may have arrived, and it is too late to repeat it safely"
        return _dismissed(order, status.UNKNOWN, told)
    if row.stale:
        waited = order.wait.reason if order.wait else reason
        return _dismissed(order, status.EXPIRED, waited or "it was not sent before its expires_at")
    if order.wait is not None:
        return _dismissed(order, status.QUEUED, order.wait.reason, order.wait.seconds)
    if reason is not None:
        return _dismissed(order, status.QUEUED, reason, _jittered(_step(BACKOFF, 99)))
    # An email's recipients are looked at one by one.
    if row.channel != "email" and recipient(row.destination, settings) is None:
        return _dismissed(
            order, status.REJECTED, "COMMUNICATION_ONLY_TO does not list the recipient"
        )
    return None


def _dismissed(
    order: Order, moved_to: str, error: str | None, delay: float | None = None
) -> Verdict:
    return {
        "id": order.row.id,
        "fence": order.row.fence,
        "uuid": order.row.uuid,
        "channel": order.row.channel,
        "status": moved_to,
        "delay": delay,
        "error": error and clean(error),
    }


def put_back(order: Order) -> Verdict:
    """Say that a claimed message is left to somebody else, at once."""
    return _dismissed(order, status.QUEUED, None, 0.0)


def too_late() -> NotSent:
    """Say that a message was not dialled because this process had been paused."""
    return NotSent("this worker was paused for too long to dial", only_this=True)


def recipient(destination: str, settings: Settings) -> str | None:
    """Return where a message really goes under the guards of this deployment; None for nowhere."""
    if settings.redirect_to is not None:
        # An email has nowhere to go on a telephone, nor an SMS in a mailbox.
        same_kind = ("@" in settings.redirect_to) == ("@" in destination)
        return settings.redirect_to if same_kind else None
    if settings.only_to:
        allowed = set(map(addresses.canonical, settings.only_to))
        if not {destination, _domain(destination)} & allowed:
            return None
    return destination


def _domain(destination: str) -> str:
    """Return ``@example.com`` of an email address."""
    return "".join(destination.rpartition("@")[1:])


def stranding(row: Row[Any], route: Route | None) -> Verdict:
    """Say what becomes of a message whose worker stopped while sending it."""
    error = "the worker stopped during the call"
    left = (route.window if route else 0.0) * WINDOW_SHARE - (row.age or 0.0)
    poisoned = row.crashes + 1 >= POISON
    if poisoned:
        error = f"{POISON} workers stopped while sending it; look at it before you resolve it"
    again = left > 0 and not poisoned
    return {
        "id": row.id,
        "fence": row.fence,
        "uuid": row.uuid,
        "channel": row.channel,
        "status": status.QUEUED if again else status.UNKNOWN,
        "delay": 0.0 if again else None,
        "repeat_for": left if again else None,
        "error": error,
    }
