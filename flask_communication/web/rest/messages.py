"""``sms/…``, which is the provider contract itself, and ``messages/…``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import request

from ...configs.state import current
from ...email import Email
from ...errors import InvalidQuery
from ...sms import SMS
from ...storage import messages
from .. import access, schemas
from ..envelope import loaded, ok, query


@access.needs("message.send")
def send_sms() -> Any:
    """Accept an SMS."""
    given = loaded(schemas.SendSMS)
    given.pop("config", None)
    uuid = SMS.send_msg(**given, idempotency_key=request.headers.get("Idempotency-Key"))
    return ok("Successfully queued", data={"msg_uuid": uuid, "extra_data": {}})


@access.needs("message.retry")
def retry_sms() -> Any:
    """Send an SMS again; what waits for its turn anyway is no mistake."""
    SMS.retry_send(loaded(schemas.RetrySMS)["msg_uuid"])
    return ok("Successfully queued")


@access.needs("message.read")
def report_sms() -> Any:
    """Tell what became of SMS; those that do not exist are left out."""
    asked = loaded(schemas.Reports)["msg_uuids"]
    known = SMS.statuses(asked)
    return ok(data=[{"msg_uuid": one, "status": known[one]} for one in asked if one in known])


@access.needs("message.read")
def list_messages() -> Any:
    """List messages, newest first."""
    given: dict[str, Any] = query(
        "channel", "status", "destination", "key", "since", "until", "after", "limit", "thread"
    )
    for name in ("since", "until"):
        if name in given:
            given[name] = _moment(name, given[name])
    if "destination" in given:
        given["destination"] = recipient(given["destination"])
    if "limit" in given:
        given["limit"] = number("limit", given["limit"])
    state = current()
    given |= {"region": state.settings.default_region, "channels": state.channels}
    page = messages.page(state.database, given.pop("channel", None), **given)
    return ok(data=schemas.Message(many=True).dump(page.items), next=page.next)


@access.needs("message.read")
def show_message(uuid: str) -> Any:
    """Tell one message's story."""
    return ok(data=schemas.Story().dump(messages.get(current().database, None, uuid)))


@access.needs("message.cancel")
def cancel_message(uuid: str) -> Any:
    """Stop a message that has not left."""
    found = messages.get(current().database, None, uuid)
    _api(found.channel).cancel(uuid)
    return ok("Successfully cancelled")


@access.needs("message.release")
def release_message(uuid: str) -> Any:
    """Let a held message pass."""
    found = messages.get(current().database, None, uuid)
    _api(found.channel).release(uuid)
    return ok("Successfully released")


@access.needs("message.resolve")
def resolve_message(uuid: str) -> Any:
    """Say what became of an unknown message."""
    decision = loaded(schemas.Resolve)["decision"]
    found = messages.get(current().database, None, uuid)
    _api(found.channel).resolve(uuid, decision)
    return ok("Successfully resolved")


def _api(channel: str) -> type[Email] | type[SMS]:
    # Each channel has its own time after which a message expires.
    return Email if channel == "email" else SMS


def _moment(name: str, text: str) -> datetime:
    try:
        # In a query a plus sign arrives as a space.
        found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except ValueError:
        raise InvalidQuery({name: ["must be a time such as 2026-11-23T12:00:00Z"]}) from None


def recipient(text: str) -> str:
    """Read a recipient of a query, where a plus sign arrives as a space."""
    is_number = text[:1] == " " and "@" not in text and text.lstrip()[:1].isdigit()
    return f"+{text.lstrip()}" if is_number else text


def number(name: str, text: str) -> int:
    """Read a whole number of a query; raise :class:`InvalidQuery` that names it."""
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise InvalidQuery({name: ["must be a whole number"]})
    return int(text)
