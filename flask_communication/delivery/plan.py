"""Plan what becomes of claimed messages: who may be written to, by which route, and when."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from ..configs import breaker
from ..configs.routes import Route, in_order
from ..configs.state import State
from ..signals import announce, limit_reached, send
from ..storage.models import status
from . import outbox
from .channel import by_number, channels_of
from .outcomes import BACKOFF, Dispatch, Wait
from .policy import limits, rate
from .policy.limits import Hold
from .transitions import Claim, Dismissal

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

# While a probe is on its way, the others look again after so many seconds.
LOOK_AGAIN = 3.0
# A claim of a channel that this application does not have waits for one that has it.
WITHOUT_CHANNEL = 60.0


@dataclass(frozen=True)
class Screened:
    """The claims that may be sent, and what is signalled of the others after the commit."""

    claims: Sequence[Claim]
    dismissed: Sequence[Dismissal] = field(default=())
    alerts: Sequence[Hold] = field(default=())

    def announce(self, app: Flask) -> None:
        """Send the signals, and log one line for each limit that was reached."""
        announce(app, self.dismissed)
        for hold in self.alerts:
            log.warning(
                "%s messages are held back: %s; see: flask communication messages --status held",
                hold.claim.channel,
                hold.reason,
            )
            send(
                app,
                limit_reached,
                limit=hold.limit.setting,
                reason=hold.reason,
                message_uuid=hold.claim.uuid,
                channel=hold.claim.channel,
                status=status.HELD,
            )


def screen(connection: Connection, state: State, claims: Sequence[Claim]) -> Screened:
    """Reject the suppressed and hold what exceeds a limit, in the transaction of their claim.

    It takes as many statements for one claim as for all.
    """
    dismissed = list(_without_channel(state, claims))
    for channel in channels_of(state):
        mine = [one for one in claims if one.channel == channel.name]
        dismissed += channel.screen(connection, mine) if mine else ()
    gone = {one.id for one in dismissed}
    wanted = [one for one in claims if one.id not in gone]
    holds = limits.check(connection, state.settings, wanted, by_number(state))
    held = {hold.claim.id for hold in holds}
    dismissed += [Dismissal.of(hold.claim, status.HELD, hold.reason) for hold in holds]
    outbox.dismiss(connection, dismissed)
    left = [one for one in wanted if one.id not in held]
    return Screened(left, dismissed, [hold for hold in holds if hold.first])


def _without_channel(state: State, claims: Sequence[Claim]) -> Iterable[Dismissal]:
    for one in claims:
        if one.channel not in state.channels:
            why = f"this application has no channel {one.channel}; a worker of another may have it"
            yield Dismissal.of(one, status.QUEUED, why, WITHOUT_CHANNEL)


def plan(
    connection: Connection, claims: Sequence[Claim], routes: Mapping[int, Route]
) -> list[Dispatch]:
    """Return a dispatch for each claim, in the transaction of the claim.

    A message in doubt stays with the provider that may have it; any other goes by the first route
    of its family that is well, after the one that failed last. What cannot go now has a ``wait``.
    """
    breaker.lock(
        connection,
        [one.config_id for one in routes.values() if one.rate or one.breaker.wants_probe],
    )
    probes = _Probes(connection)
    now = time.monotonic()
    dispatches = [_dispatch(claim, routes, probes, now) for claim in claims]
    _log_detours(dispatches, routes)
    return _paced(connection, dispatches)


class _Probes:
    """Lets one message of all workers go by each configuration whose pause is over."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked: set[int] = set()

    def take(self, config_id: int) -> bool:
        if config_id in self._asked:
            return False
        self._asked.add(config_id)
        return breaker.take_probe(self._connection, config_id)


def _dispatch(claim: Claim, routes: Mapping[int, Route], probes: _Probes, now: float) -> Dispatch:
    family = _family(claim, routes)
    well = [route for route in family if route.trouble is None]
    for place, route in enumerate(well):
        is_probe = route.breaker.wants_probe and probes.take(route.config_id)
        if is_probe or not route.breaker.wants_probe:
            left_in_round = len(family) - 1 - claim.tries % len(family)
            others = max(0, min(len(well) - 1 - place, left_in_round))
            return Dispatch(claim, route, now, len(family), others, is_probe=is_probe)
    return Dispatch(claim, family[0], now, len(family), wait=_wait(family))


def _family(claim: Claim, routes: Mapping[int, Route]) -> list[Route]:
    """Return the routes a message may go by now, the next one first."""
    last = routes.get(claim.config_id or 0)
    home = routes.get(claim.route_id or claim.config_id or 0)
    # An earlier try may have arrived, or the provider knows it by its own id: nobody else may have
    # it.
    if claim.in_doubt or claim.is_retry:
        return [last or _nowhere(claim)]
    if home is None:
        return [_nowhere(claim)]
    family = in_order(home, routes, claim.uuid)
    if not claim.tries:
        return family
    places = [route.config_id for route in family]
    after = places.index(claim.config_id) + 1 if claim.config_id in places else 0
    return family[after:] + family[:after]


def _nowhere(claim: Claim) -> Route:
    return Route(claim.config_id or 0, blocked=f"configuration {claim.config_id} does not exist")


def _wait(family: Sequence[Route]) -> Wait:
    """Return why none of these routes can be used, and until when."""
    soonest = min((_pause(route) for route in family), default=BACKOFF[-1])
    troubles = dict.fromkeys(
        route.trouble or f"{route.name} is {route.breaker}" for route in family
    )
    # Spread out, so that what waited together does not come back at one moment.
    return Wait(soonest * random.uniform(1.0, 1.2), "; ".join(troubles))


def _pause(route: Route) -> float:
    if route.blocked is not None or route.breaker.state == breaker.STOPPED:
        return BACKOFF[2]
    return max(route.breaker.left or 0.0, 0.0) if route.breaker.is_paused else LOOK_AGAIN


def _log_detours(dispatches: Sequence[Dispatch], routes: Mapping[int, Route]) -> None:
    """Log, once for each pair, how many messages go by another route than their first."""
    moved: Counter[tuple[str, str]] = Counter()
    for dispatch in dispatches:
        if dispatch.family > 1 and dispatch.wait is None:
            first = in_order(routes[dispatch.claim.route_id or 0], routes, dispatch.claim.uuid)[0]
            if first.config_id != dispatch.route.config_id:
                moved[first.name, dispatch.route.name] += 1
    for (first_name, name), count in moved.items():
        log.info("%s messages of %s go by %s", count, first_name, name)


def _paced(connection: Connection, dispatches: list[Dispatch]) -> list[Dispatch]:
    """Put off what is over the rate of its configuration."""
    limited: dict[int, list[int]] = defaultdict(list)
    for place, dispatch in enumerate(dispatches):
        if dispatch.wait is None and dispatch.route.rate is not None:
            limited[dispatch.route.config_id].append(place)
    for config_id, places in sorted(limited.items()):
        per_second = dispatches[places[0]].route.rate
        assert per_second is not None
        granted, delays = rate.take(connection, config_id, per_second, len(places))
        for place, delay in zip(places[granted:], delays, strict=True):
            name = dispatches[place].route.name
            why = f"waits for its turn: {name} sends {per_second:g} a second"
            dispatches[place] = replace(dispatches[place], wait=Wait(delay, why))
    return dispatches
