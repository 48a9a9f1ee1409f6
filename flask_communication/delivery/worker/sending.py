"""Calls to providers, made in the threads of a pool: they do no SQL, and raise nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from ...configs.routes import Route
from ...configs.state import State
from ...email.records import Letter
from ...errors import OutcomeUnknown, ProviderError, Refused
from ...providers.base import Accepted
from ...storage.crashpoints import crash_point
from .. import outbox, outcomes
from ..outcomes import Order, Result

log = logging.getLogger(__name__)

# A provider call takes at most this long; with less of its lease left a message is not dialled.
CALL_DEADLINE = 20.0
LEARN_FOR = 1.0


@dataclass(frozen=True)
class Call:
    """Messages that went to their provider together, and how each ended."""

    orders: Sequence[Order]
    results: Sequence[Result]
    letter: Letter | None = None


def calling(
    state: State, orders: Sequence[Order], letter: Letter | None = None
) -> Callable[[], Call]:
    """Return the call that sends these messages together, or the one email whose ``letter`` it is."""
    begun = time.monotonic()

    def call() -> Call:
        if time.monotonic() - begun > outbox.LEASE - CALL_DEADLINE:
            # This process was paused: somebody else may be dialling by now.
            late = outcomes.too_late()
            return Call(orders, [late] * len(orders), letter)
        crash_point("call.begun")
        results = _results(state, orders, letter)
        _learn_late(orders[0].route, results)
        crash_point("call.ended")
        return Call(orders, results, letter)

    return call


def _learn_late(route: Route, results: Sequence[Result]) -> None:
    """Ask a provider that has not told what it can do yet, because what is in doubt depends on it."""
    is_stranger = route.provider is not None and not route.provider.is_known
    if is_stranger and any(isinstance(one, OutcomeUnknown) for one in results):
        route.learn()


def _results(state: State, orders: Sequence[Order], letter: Letter | None) -> Sequence[Result]:
    try:
        with orders[0].route.dialling():
            if orders[0].row.channel == "email":
                return [_mailed(state, orders[0], letter)]
            return _texted(state, orders)
    except ProviderError as failure:
        return [failure] * len(orders)
    except Exception as failure:
        provider = orders[0].route.provider
        log.exception("provider %s failed in an unforeseen way", provider and provider.name)
        told = OutcomeUnknown(f"the provider failed in an unforeseen way: {type(failure).__name__}")
        return [told] * len(orders)


def _texted(state: State, orders: Sequence[Order]) -> Sequence[Result]:
    route = orders[0].route
    assert route.provider is not None
    batch = [
        order.sms(outcomes.recipient(order.row.destination, state.settings) or "")
        for order in orders
    ]
    if len(batch) > 1:
        return _checked(route.provider.send_sms_bulk(batch, route.config), len(batch))
    send = route.provider.retry_sms if orders[0].is_retry else route.provider.send_sms
    return [send(batch[0], route.config)]


def _mailed(state: State, order: Order, letter: Letter | None) -> Accepted:
    route = order.route
    assert route.provider is not None
    if letter is None or not letter.email.sender:
        raise Refused(
            "the email has no sender: say one, or set COMMUNICATION_DEFAULT_SENDER", only_this=True
        )
    goes_to = {one: outcomes.recipient(one, state.settings) for one in letter.email.recipients}
    open_ones = list(dict.fromkeys(one for one in goes_to.values() if one is not None))
    if not open_ones:
        raise Refused("COMMUNICATION_ONLY_TO lists none of the recipients", only_this=True)
    result = route.provider.send_email(replace(letter.email, recipients=open_ones), route.config)
    if not isinstance(result, Accepted):
        raise OutcomeUnknown("the provider did not say whether it took the email")
    closed = Refused("COMMUNICATION_ONLY_TO does not list the recipient", only_this=True)
    failed = {one: closed if at is None else result.failed.get(at) for one, at in goes_to.items()}
    return replace(result, failed={one: why for one, why in failed.items() if why is not None})


def _checked(results: Sequence[Result], expected: int) -> Sequence[Result]:
    if len(results) != expected:
        raise OutcomeUnknown(f"{len(results)} results came back for {expected} messages")
    return results


def learn(pool: ThreadPoolExecutor, routes: Iterable[Route]) -> None:
    """Let providers that are new to this process find out what they can do, all at once.

    Nobody waits long for one that does not answer: it goes on trying, and counts as plain
    meanwhile.
    """
    strangers = {id(r.provider): r for r in routes if r.provider and not r.provider.is_known}
    wait([pool.submit(route.learn) for route in strangers.values()], timeout=LEARN_FOR)
