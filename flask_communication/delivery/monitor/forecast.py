"""What would become of a message now: all that a worker looks at, in its order; nothing is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.engine import Connection

from ...configs import routes as routing
from ...configs import store
from ...configs.routes import Route, Routes
from ...configs.settings import Settings
from ...configs.state import State
from ...formats import addresses, numbers
from ...storage.dialect import dialect_of
from .. import outcomes
from ..policy import limits, suppression
from . import story


def foretell(
    state: State, channel: str, destination: str, key: str | int | None, sender: str | None = None
) -> Iterator[str]:
    """Return by which configuration a message would go now, or why not, line by line; nothing is changed.

    ``sender`` is the message's, None for COMMUNICATION_DEFAULT_SENDER. Raises
    :class:`InvalidMessage` for what is no recipient, and :class:`ConfigNotFound`.
    """
    to = _recipient(channel, destination, state.settings)
    with state.database.read() as connection:
        chosen = routing.choose(connection, channel, key)
        routes = Routes(state).load(connection, {chosen})
        row = _draft(connection, channel, to, sender or state.settings.default_sender, chosen)
        suppressed = suppression.foresee(connection, row)
        limit = limits.foresee(connection, state.settings, row)
        queues = _queues(connection)
    home = routes[chosen]
    asked = "the default one" if key is None else f"the one called {key!r}"
    yield f"{channel} to {to} by {asked}, {home.name}"
    if suppressed is not None:
        yield f"  nowhere: {suppressed}; it would be rejected"
        return
    if limit is not None:
        yield f"  nowhere yet: {limit.setting} {limit.says}; it would be held until: {RELEASE}; and then"
    goes_to = outcomes.recipient(to, state.settings)
    if goes_to is None:
        yield f"  nowhere: {_guard(state.settings)}; it would be rejected"
        return
    if goes_to != to:
        yield f"  COMMUNICATION_REDIRECT_TO sends it to {goes_to} instead"
    yield from _ways(home, routes, queues)
    for name in store.strangers(state).get(chosen, ()):
        yield f"     {name}: passed over, no {channel} configuration has this key"


RELEASE = "flask communication release UUID"


def _recipient(channel: str, raw: str, settings: Settings) -> str:
    if channel == "email":
        return addresses.bare(addresses.mailbox("destination", raw))
    return numbers.number(raw, settings.default_region)


def _draft(
    connection: Connection, channel: str, destination: str, sender: str | None, config_id: int
) -> Row[Any]:
    """Return a message as a claim would, that is in no table."""
    given = {
        "channel": channel,
        "destination": destination,
        "sender": sender,
        "config_id": config_id,
    }
    return connection.execute(_DRAFT, given).one()


_DRAFT = text(
    "SELECT 0 AS id, CAST(:channel AS varchar(10)) AS channel, CAST(:sender AS varchar(320)) AS "
    "sender,"
    " CAST(:destination AS varchar(320)) AS destination, CAST(:config_id AS integer) AS config_id"
)


def _guard(settings: Settings) -> str:
    if settings.redirect_to is not None:
        return "COMMUNICATION_REDIRECT_TO is of another channel"
    return "COMMUNICATION_ONLY_TO does not list the recipient"


def _queues(connection: Connection) -> Mapping[int, float]:
    """Return how many seconds of messages wait for their turn, for each configuration that has a rate."""
    left = f"0 - {dialect_of(connection).since('queued_until')}"
    rows = connection.execute(
        text(f"SELECT config_id, {left} AS seconds FROM communication_circuit")
    )
    return {
        row.config_id: row.seconds for row in rows if row.seconds is not None and row.seconds > 0
    }


def _ways(home: Route, routes: Mapping[int, Route], queues: Mapping[int, float]) -> Iterator[str]:
    """Say of each route what speaks for and against it, and how many messages of 100 go by it."""
    family = [home, *(routes[one] for one in home.fallback if one in routes)]
    orders = [routing.in_order(home, routes, f"{point:08x}") for point in range(100)]
    begins = Counter(order[0].config_id for order in orders)
    goes = Counter(_first_that_is_well(order) for order in orders)
    for route in family:
        line = story.way(route, begins[route.config_id])
        if route.rate and route.config_id in queues:
            line += f", with {queues[route.config_id]:.0f} s of messages before it"
        yield f"  {'->' if goes[route.config_id] else '  '} {line}"
    if goes[None]:
        yield story.NO_WAY


def _first_that_is_well(order: Sequence[Route]) -> int | None:
    return next((route.config_id for route in order if route.trouble is None), None)
