"""Map the result of a request to a message's next state. Pure functions, no SQL."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..configs.routes import Route
from ..errors import NotSent, ProviderError, Refused
from ..formats.text import clean
from ..providers.base import Accepted
from ..storage.models import status
from .transitions import Claim, Dismissal, Settlement, Start, Stranded

# Seconds until the next attempt of a message that was not sent, by number of attempts; the last
# one repeats.
BACKOFF: tuple[float, ...] = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
# The same for a message in doubt, at a provider that ignores repeats.
REPEATS: tuple[float, ...] = (1.0, 5.0, 30.0, 120.0)
JITTER = 0.2
MAX_RETRY_AFTER = 3600.0
# Of the provider's window only this share is used: its clock is not ours.
WINDOW_SHARE = 0.8
# After so many workers that stopped while sending it, a message waits for a person.
POISON = 3

Result = Accepted | ProviderError


@dataclass(frozen=True)
class Wait:
    """Why a message cannot go now, and for how many seconds."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class Dispatch:
    """A claimed message, the route it goes by, and when it was claimed (monotonic seconds).

    ``family`` is the number of routes it may go by in turn, ``others`` how many of them are still
    to be tried before a pause. ``wait`` says that it cannot go now. ``is_probe``: it finds out
    whether a paused configuration works again.
    """

    claim: Claim
    route: Route
    claimed: float
    family: int = 1
    others: int = 0
    wait: Wait | None = None
    is_probe: bool = False


def starting(dispatch: Dispatch) -> Start:
    """Return the row that marks a message as being sent."""
    claim = dispatch.claim
    return Start(claim.id, claim.fence, dispatch.route.config_id, claim.key)


def settlement(
    dispatch: Dispatch, result: Result, elapsed: float, backoff: Sequence[float] = BACKOFF
) -> Settlement:
    """Return what becomes of a message by the result of its request.

    ``elapsed`` is the seconds since the claim; ``backoff`` the channel's pauses between attempts.
    """
    if isinstance(result, Accepted):
        return _accepted(dispatch, result)
    if isinstance(result, NotSent):
        return _not_sent(dispatch, result, backoff)
    denied = isinstance(result, Refused) and result.denies_us
    in_doubt = dispatch.claim.in_doubt
    if denied and dispatch.others and not in_doubt:
        return _failed(dispatch, result, status.QUEUED, status.REFUSED, 0.0)
    # A refusal of our credentials says nothing about the earlier attempt.
    if isinstance(result, Refused) and not (denied and in_doubt):
        return _failed(dispatch, result, status.REJECTED, status.REFUSED)
    return _unknown(dispatch, result, (dispatch.claim.age or 0.0) + elapsed)


def _accepted(dispatch: Dispatch, result: Accepted) -> Settlement:
    claim = dispatch.claim
    return Settlement(
        claim.id,
        claim.fence,
        claim.uuid,
        claim.channel,
        status.SENT,
        status.ACCEPTED,
        delay=dispatch.route.report_after,
        ref=clean(result.ref, 255),
        extra=dict(result.extra) or None,
    )


def _failed(
    dispatch: Dispatch,
    failure: ProviderError,
    to: str,
    state: str,
    delay: float | None = None,
    repeat_for: float | None = None,
) -> Settlement:
    claim = dispatch.claim
    return Settlement(
        claim.id,
        claim.fence,
        claim.uuid,
        claim.channel,
        to,
        state,
        delay,
        repeat_for,
        error=clean(failure.reason),
        code=clean(failure.code, 50) if failure.code else None,
        http_status=failure.http_status,
    )


def _not_sent(dispatch: Dispatch, failure: NotSent, backoff: Sequence[float]) -> Settlement:
    if dispatch.others:
        # It certainly did not leave: a fallback may try at once.
        return _failed(dispatch, failure, status.QUEUED, status.NOT_SENT, 0.0)
    delay = _jittered(_step(backoff, dispatch.claim.tries // dispatch.family))
    if failure.retry_after is not None:
        delay = max(delay, min(failure.retry_after, MAX_RETRY_AFTER))
    return _failed(dispatch, failure, status.QUEUED, status.NOT_SENT, delay)


def _unknown(dispatch: Dispatch, failure: ProviderError, age: float) -> Settlement:
    left = dispatch.route.window * WINDOW_SHARE - age
    if left <= 0:
        return _failed(dispatch, failure, status.UNKNOWN, status.CANNOT_KNOW)
    delay = min(_jittered(_step(REPEATS, dispatch.claim.tries)), left)
    return _failed(dispatch, failure, status.QUEUED, status.CANNOT_KNOW, delay, left)


def _step(steps: Sequence[float], tries: int) -> float:
    return steps[min(tries, len(steps) - 1)]


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)


def dismissal(dispatch: Dispatch) -> Dismissal | None:
    """Return why a claimed message is not sent now, None if it is sent."""
    claim, wait = dispatch.claim, dispatch.wait
    reason = wait.reason if wait else dispatch.route.blocked
    if claim.in_doubt and (claim.closed or claim.stale):
        doubt = "an earlier try may have arrived, and it is too late to repeat it safely"
        return Dismissal.of(claim, status.UNKNOWN, doubt)
    if claim.stale:
        error = reason or "it was not sent before its expires_at"
        return Dismissal.of(claim, status.EXPIRED, clean(error))
    if wait is not None:
        return Dismissal.of(claim, status.QUEUED, clean(wait.reason), wait.seconds)
    if reason is not None:
        return Dismissal.of(claim, status.QUEUED, clean(reason), _jittered(BACKOFF[-1]))
    return None


def refusal(claim: Claim, why: str) -> Dismissal:
    """Return the dismissal of a message that must not be sent: rejected, or unknown if in doubt."""
    if claim.in_doubt:
        doubt = f"an earlier try may have arrived, and now {why}"
        return Dismissal.of(claim, status.UNKNOWN, clean(doubt))
    return Dismissal.of(claim, status.REJECTED, clean(why))


def too_late() -> NotSent:
    """Return the result of a message that was not sent because this process had been paused."""
    return NotSent("this worker was paused for too long to send", only_this=True)


def stranding(message: Stranded, route: Route | None) -> Settlement:
    """Return what becomes of a message whose worker stopped while sending it."""
    error = "the worker stopped during the call"
    left = (route.window if route else 0.0) * WINDOW_SHARE - (message.age or 0.0)
    poisoned = message.crashes + 1 >= POISON
    if poisoned:
        error = f"{POISON} workers stopped while sending it; look at it before you resolve it"
    again = left > 0 and not poisoned
    return Settlement(
        message.id,
        message.fence,
        message.uuid,
        message.channel,
        status.QUEUED if again else status.UNKNOWN,
        status.CANNOT_KNOW,
        delay=0.0 if again else None,
        repeat_for=left if again else None,
        error=error,
    )
