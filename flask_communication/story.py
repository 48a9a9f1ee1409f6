"""One message's whole story, for a person: what happened, what was said, and what comes next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from . import status
from .models import Attempt, Event, Message

_NEXT = {
    status.QUEUED: "a worker sends it",
    status.SENDING: "the call ends, or a worker takes it up",
    status.SENT: "a worker asks for its delivery report",
    status.UNKNOWN: "a worker asks the provider about it",
}
_REST = {
    status.HELD: "nothing, until it is released",
    status.SENT: "nothing: no delivery report came while it was asked for",
    status.UNKNOWN: 'nothing, until a person decides: SMS.resolve(uuid, "sent" | "resend" | "drop")',
}


def tell(message: Message) -> Iterator[str]:
    """Return the story of a message that was loaded with its attempts and events, line by line."""
    yield f"{message.channel} {message.uuid} is {message.status}"
    yield f"  to {message.destination}" + (f" from {message.sender}" if message.sender else "")
    yield f"  by {_config(message)}"
    if message.error:
        yield f"  because {message.error}" + (f" ({message.error_code})" if message.error_code else "")
    yield f"  {_moment(message.created_at)}  accepted"
    lines = [_attempt(one) for one in message.attempts] + [_event(one) for one in message.events]
    for moment, line in sorted(lines):
        yield f"  {_moment(moment)}  {line}"
    yield f"  next: {_next(message)}"


def _config(message: Message) -> str:
    if message.config is None:
        return "no configuration"
    found = message.config
    gone = ", which was deleted" if found.deleted_at else "" if found.enabled else ", which is disabled"
    name = found.provider or found.provider_pkg_name
    return f"configuration {found.id}{f' ({found.key})' if found.key else ''}: {name}{gone}"


def _attempt(attempt: Attempt) -> tuple[datetime, str]:
    took = ""
    if attempt.ended_at is not None:
        took = f" after {(attempt.ended_at - attempt.started_at).total_seconds():.2f} s"
    parts = [f"called the provider (key {attempt.key}): {attempt.state}{took}"]
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


def _next(message: Message) -> str:
    if message.due_at is None:
        return _REST.get(message.status, "nothing, it is over")
    return f"{_moment(message.due_at)}  {_NEXT[message.status]}"


def _moment(moment: datetime) -> str:
    return f"{moment:%F %T}Z"
