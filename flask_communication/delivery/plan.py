"""Which way each claimed message goes now, or how long it waits: fallbacks, circuits and rates."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row
from sqlalchemy.engine import Connection

from ..configs import breaker
from ..configs.routes import Route, in_order
from .outcomes import BACKOFF, Order, Wait
from .policy import rate as pace

log = logging.getLogger(__name__)

# While a probe is on its way, the others look again after so many seconds.
LOOK_AGAIN = 3.0


def plan(
    connection: Connection, rows: Sequence[Row[Any]], routes: Mapping[int, Route]
) -> list[Order]:
    """Return an order for each claimed row, in the transaction of the claim.

    A message in doubt stays with the provider that may have it; any other goes by the first route
    of its family that is well, after the one that failed last. What cannot go now has a ``wait``.
    """
    breaker.lock(
        connection,
        [one.config_id for one in routes.values() if one.rate or one.circuit.wants_probe],
    )
    probes = _Probes(connection)
    now = time.monotonic()
    orders = [_order(row, routes, probes, now) for row in rows]
    _tell(orders, routes)
    return _paced(connection, orders)


class _Probes:
    """Sends one message, of all workers' messages, by each configuration whose pause is over."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked: set[int] = set()

    def take(self, config_id: int) -> bool:
        if config_id in self._asked:
            return False
        self._asked.add(config_id)
        return breaker.take_probe(self._connection, config_id)


def _order(row: Row[Any], routes: Mapping[int, Route], probes: _Probes, now: float) -> Order:
    family = _family(row, routes)
    well = [route for route in family if route.trouble is None]
    for place, route in enumerate(well):
        is_probe = route.circuit.wants_probe and probes.take(route.config_id)
        if is_probe or not route.circuit.wants_probe:
            left_in_round = len(family) - 1 - row.tries % len(family)
            others = max(0, min(len(well) - 1 - place, left_in_round))
            return Order(row, route, now, len(family), others, is_probe=is_probe)
    return Order(row, family[0], now, len(family), wait=_wait(family))


def _family(row: Row[Any], routes: Mapping[int, Route]) -> list[Route]:
    """Return the routes a message may go by now, the next one first."""
    last = routes.get(row.config_id)
    home = routes.get(row.route_id or row.config_id)
    # An earlier try may have arrived, or the provider knows it by its own id: nobody else may have
    # it.
    if row.repeat_until is not None or (row.provider_ref and row.resends):
        return [last or _nowhere(row)]
    if home is None:
        return [_nowhere(row)]
    family = in_order(home, routes, row.uuid)
    if not row.tries:
        return family
    places = [route.config_id for route in family]
    after = places.index(row.config_id) + 1 if row.config_id in places else 0
    return family[after:] + family[:after]


def _nowhere(row: Row[Any]) -> Route:
    return Route(row.config_id or 0, blocked=f"configuration {row.config_id} does not exist")


def _wait(family: Sequence[Route]) -> Wait:
    """Say why none of these can be used, and until when."""
    soonest = min((_pause(route) for route in family), default=BACKOFF[-1])
    troubles = dict.fromkeys(
        route.trouble or f"{route.name} is {route.circuit}" for route in family
    )
    # Spread out, so that what waited together does not come back at one moment.
    return Wait(soonest * random.uniform(1.0, 1.2), "; ".join(troubles))


def _pause(route: Route) -> float:
    if route.blocked is not None or route.circuit.state == breaker.STOPPED:
        return BACKOFF[2]
    return max(route.circuit.left or 0.0, 0.0) if route.circuit.is_paused else LOOK_AGAIN


def _tell(orders: Sequence[Order], routes: Mapping[int, Route]) -> None:
    """Log, once for all of them, which messages go by another route than the one they would begin with."""
    moved: Counter[tuple[str, str]] = Counter()
    for order in orders:
        if order.family > 1 and order.wait is None:
            first = in_order(routes[order.row.route_id], routes, order.row.uuid)[0]
            if first.config_id != order.route.config_id:
                moved[first.name, order.route.name] += 1
    for (first_name, name), count in moved.items():
        log.info("%s messages of %s go by %s", count, first_name, name)


def _paced(connection: Connection, orders: list[Order]) -> list[Order]:
    """Put off what is over the rate of its configuration."""
    limited: dict[int, list[int]] = defaultdict(list)
    for place, order in enumerate(orders):
        if order.wait is None and order.route.rate is not None:
            limited[order.route.config_id].append(place)
    for config_id, places in sorted(limited.items()):
        rate = orders[places[0]].route.rate
        assert rate is not None
        granted, delays = pace.take(connection, config_id, rate, len(places))
        for place, delay in zip(places[granted:], delays, strict=True):
            why = f"waits for its turn: {orders[place].route.name} sends {rate:g} a second"
            orders[place] = replace(orders[place], wait=Wait(delay, why))
    return orders
