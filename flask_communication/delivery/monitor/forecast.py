"""What would become of a message now: all that a worker looks at, in its order; nothing is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.engine import Connection

from ...configs import routes as routing
from ...configs import store
from ...configs.routes import Route, Routes
from ...configs.settings import Settings
from ...configs.state import State
from ...storage.dialect import dialect_of
from ...storage.models import PRIORITIES
from ..channel import by_number, channel_of
from ..policy import limits
from ..transitions import Claim
from . import story


def foretell(
    state: State, channel: str, destination: str, key: str | int | None, sender: str | None = None
) -> Iterator[str]:
    """Return by which configuration a message would go now, or why not, line by line; nothing is changed.

    ``sender`` is the message's, None for COMMUNICATION_DEFAULT_SENDER. Raises
    :class:`InvalidMessage` for what is no recipient, and :class:`ConfigNotFound`.
    """
    asked_of = channel_of(state, channel)
    to = asked_of.parse_recipient(destination, state.settings)
    with state.database.read() as connection:
        chosen = routing.choose(connection, channel, key)
        routes = Routes(state).load(connection, {chosen})
        claim = _claim(channel, to, sender or state.settings.default_sender, chosen)
        suppressed = asked_of.foresee(connection, claim)
        limit = limits.foresee(connection, state.settings, claim, by_number(state))
        queues = _queues(connection)
    home = routes[chosen]
    asked = "the default one" if key is None else f"the one called {key!r}"
    yield f"{channel} to {to} by {asked}, {home.name}"
    if suppressed is not None:
        yield f"  nowhere: {suppressed}; it would be rejected"
        return
    if limit is not None:
        yield f"  nowhere yet: {limit.setting} {limit.says}; it would be held until: {RELEASE}; and then"
    goes_to = asked_of.recipient(claim, state.settings)
    if goes_to is None:
        yield f"  nowhere: {_guard(state.settings)}; it would be rejected"
        return
    if goes_to != to:
        yield f"  COMMUNICATION_REDIRECT_TO sends it to {goes_to} instead"
    yield from _ways(home, routes, queues)
    for name in store.strangers(state).get(chosen, ()):
        yield f"     {name}: passed over, no {channel} configuration has this key"


RELEASE = "flask communication release UUID"


def _claim(channel: str, destination: str, sender: str | None, config_id: int) -> Claim:
    """Return a claim of a message that is in no table."""
    return Claim(
        id=0,
        fence=0,
        uuid="",
        channel=channel,
        destination=destination,
        sender=sender,
        body="",
        config_id=config_id,
        route_id=config_id,
        priority=PRIORITIES["normal"],
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
