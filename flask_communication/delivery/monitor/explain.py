"""Explain a message to a person: its timeline, what comes next, and by which route it would go."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.engine import Connection

from ...configs import routes as routing
from ...configs import store
from ...configs.routes import Route, Routes
from ...configs.settings import Settings
from ...configs.state import State
from ...storage.dialect import dialect_of
from ...storage.models import PRIORITIES, Attempt, Event, Message, status
from ...storage.retention import REMOVED
from ..channel import Channel, by_number, channel_of
from ..policy import limits
from ..transitions import Claim

_NEXT = {
    status.QUEUED: "a worker sends it",
    status.SENDING: "the call ends, or a worker takes it up",
    status.SENT: "a worker asks for its delivery report",
    status.UNKNOWN: "a worker asks the provider about it",
}
_REST = {
    status.HELD: "nothing, until it is released: flask communication release {uuid}",
    status.SENT: "nothing: no delivery report came while it was asked for",
    status.UNKNOWN: "nothing, until a person decides: flask communication resolve {uuid} "
    "sent|resend|drop",
    status.RECEIVED: "nothing, it came in",
    **dict.fromkeys(
        status.MOVES["retry"].sources,
        "nothing, it is over; to repeat it: flask communication retry {uuid}",
    ),
}
# Of a provider that knows no delivery reports, such as a mail server.
_SILENT = (
    "nothing: its provider sends no delivery reports; if it comes back, a bounce comes to the inbox"
)


def timeline(state: State, message: Message) -> Iterator[str]:
    """Say line by line what happened to a message and what comes next.

    The message was loaded with its attempts and events.
    """
    routes = _routes(state, message)
    yield f"{message.channel} {message.uuid} is {message.status}"
    yield f"  to {message.destination}" + (f" from {message.sender}" if message.sender else "")
    yield from _mail(message)
    yield f"  by {_config(message)}"
    if message.error:
        yield f"  because {message.error}" + (
            f" ({message.error_code})" if message.error_code else ""
        )
    if message.extra == json.loads(REMOVED):
        yield "  its text was removed by the retention policy"
    first = "received" if message.direction == "in" else "accepted"
    yield f"  {_moment(message.created_at)}  {first}"
    lines = [_attempt(one) for one in message.attempts] + [_event(one) for one in message.events]
    for moment, line in sorted(lines):
        yield f"  {_moment(moment)}  {line}"
    channel = channel_of(state, message.channel)
    yield f"  next: {_next(message, channel, routes.get(message.config_id or 0))}"
    if message.status == status.QUEUED:
        yield from _ways(
            routes, routes.get(message.route_id or message.config_id or 0), message.uuid
        )


def _mail(message: Message) -> Iterator[str]:
    """Say what an email has besides: its subject, its recipients if they are several, its files."""
    if message.mail is None:
        return
    yield f"  subject: {message.mail.subject or '(none)'}"
    people = message.recipients
    for one in people if len(people) > 1 else ():
        why = (
            f", {one.error or ''} ({one.error_code or 'no code'})"
            if one.error or one.error_code
            else ""
        )
        yield f"  {one.kind} {one.address}: {one.status}{why}"
    for file in message.mail.attachments:
        yield f"  file: {file.filename} ({file.content_type})"
    if message.mail.problem:
        yield f"  problem: {message.mail.problem}"


def _routes(state: State, message: Message) -> dict[int, Route]:
    with state.database.read() as connection:
        return Routes(state).load(connection, {message.config_id, message.route_id})


def _ways(routes: Mapping[int, Route], home: Route | None, uuid: str) -> Iterator[str]:
    """Say of each route of a message how it is."""
    if home is None:
        return
    family = routing.in_order(home, routes, uuid)
    goes = next((route for route in family if route.trouble is None), None)
    for route in family:
        yield f"  {'->' if route is goes else '  '} {_route_line(route, route.weight)}"
    if goes is None:
        yield NO_WAY


NO_WAY = "  it would wait until one of them is well, or until it expires"


def _route_line(route: Route, share: int) -> str:
    """Say how a route is, and that ``share`` of 100 messages begin with it."""
    provider = route.provider.name if route.provider else "no provider"
    more = [route.trouble or ("probed with one message" if route.breaker.wants_probe else "well")]
    more += ["only in need"] if share == 0 else [f"begins {share} of 100"] if share != 100 else []
    more += [f"at most {route.rate:g} a second"] if route.rate else []
    return f"{route.name}, {provider}: {', '.join(more)}"


def _config(message: Message) -> str:
    if message.config is None:
        return "no configuration"
    found = message.config
    gone = (
        ", which was deleted"
        if found.deleted_at
        else ""
        if found.enabled
        else ", which is disabled"
    )
    name = found.provider or found.provider_pkg_name
    return f"configuration {found.id}{f' ({found.key})' if found.key else ''}: {name}{gone}"


def _attempt(attempt: Attempt) -> tuple[datetime, str]:
    took = ""
    if attempt.ended_at is not None:
        took = f" after {(attempt.ended_at - attempt.started_at).total_seconds():.2f} s"
    by = f"configuration {attempt.config_id}" if attempt.config_id else "the provider"
    parts = [f"called {by} (key {attempt.key}): {attempt.state}{took}"]
    parts += [f"as {attempt.provider_ref}"] if attempt.provider_ref else []
    parts += [f"HTTP {attempt.http_status}"] if attempt.http_status else []
    parts += [f"code {attempt.error_code}"] if attempt.error_code else []
    parts += [attempt.error] if attempt.error else []
    return attempt.started_at, ", ".join(parts)


def _event(event: Event) -> tuple[datetime, str]:
    said = f"{event.kind}: {event.status or event.detail or ''}"
    if event.status and event.detail:
        said += f", {event.detail}"
    return event.received_at, said + ("" if event.applied else " (old news, changed nothing)")


def _next(message: Message, channel: Channel, route: Route | None) -> str:
    if message.status == status.SENT and _is_silent(channel, route):
        return _SILENT
    if message.due_at is None:
        return _REST.get(message.status, "nothing, it is over").format(uuid=message.uuid)
    return f"{_moment(message.due_at)}  {_NEXT[message.status]}"


def _is_silent(channel: Channel, route: Route | None) -> bool:
    provider = route.provider if route else None
    return provider is not None and not channel.reports_come(provider)


def _moment(moment: datetime) -> str:
    return f"{moment:%F %T}Z"


# --- A message that is not sent yet


def explain(
    state: State, channel: str, destination: str, key: str | int | None, sender: str | None = None
) -> Iterator[str]:
    """Say line by line by which configuration a message would go now, or why it would not.

    Nothing is sent or changed.
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
        why = f"{limit.setting} {limit.says}"
        yield f"  nowhere yet: {why}; it would be held until: {RELEASE}; and then"
    goes_to = asked_of.recipient(claim, state.settings)
    if goes_to is None:
        yield f"  nowhere: {_guard(state.settings)}; it would be rejected"
        return
    if goes_to != to:
        yield f"  COMMUNICATION_REDIRECT_TO sends it to {goes_to} instead"
    yield from _shares(home, routes, queues)
    for name in store.unknown_fallbacks(state).get(chosen, ()):
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
    """Return the seconds of messages that wait at each configuration that has a rate."""
    left = f"0 - {dialect_of(connection).since('queued_until')}"
    rows = connection.execute(
        text(f"SELECT config_id, {left} AS seconds FROM communication_circuit")
    )
    return {
        row.config_id: row.seconds for row in rows if row.seconds is not None and row.seconds > 0
    }


def _shares(home: Route, routes: Mapping[int, Route], queues: Mapping[int, float]) -> Iterator[str]:
    """Say of each route how it is, and how many messages of 100 go by it."""
    family = [home, *(routes[one] for one in home.fallback if one in routes)]
    orders = [routing.in_order(home, routes, f"{point:08x}") for point in range(100)]
    begins = Counter(order[0].config_id for order in orders)
    goes = Counter(_first_that_is_well(order) for order in orders)
    for route in family:
        line = _route_line(route, begins[route.config_id])
        if route.rate and route.config_id in queues:
            line += f", with {queues[route.config_id]:.0f} s of messages before it"
        yield f"  {'->' if goes[route.config_id] else '  '} {line}"
    if goes[None]:
        yield NO_WAY


def _first_that_is_well(order: Sequence[Route]) -> int | None:
    return next((route.config_id for route in order if route.trouble is None), None)
