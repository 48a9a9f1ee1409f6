"""What a user calls to send SMS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..configs.settings import Settings
from ..configs.state import current
from ..delivery import accept, actions, drafting, reports
from ..delivery.announce import announce
from ..delivery.policy import suppression
from ..delivery.policy.suppression import Suppressed
from ..delivery.reports import SyncResult
from ..errors import InvalidMessage
from ..formats import segments
from ..formats.numbers import number
from ..formats.segments import MOST_SEGMENTS, Estimate
from ..storage import erasure, messages
from ..storage.erasure import Erased
from ..storage.messages import Page
from ..storage.models import Message
from . import incoming

__all__ = ["SMS", "Estimate", "Page", "Suppressed", "SyncResult", "statuses"]

CHANNEL = "sms"
# An SMS that could not be sent by then is worthless (GOV.UK Notify gives up after the same 4
# hours).
LIFETIME = 4 * 3600.0
# Ten times what a telephone can send in one message.
LONGEST_RECEIVED = 16_000
_FIELDS = frozenset({"destination", "msg", "sender", "key", *drafting.OPTIONS})


class SMS:
    """Send SMS, follow them, and decide about those that need a person."""

    @staticmethod
    def send_msg(
        destination: str,
        msg: str,
        key: str | int | None = None,
        *,
        send_at: datetime | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
        priority: str = "normal",
        metadata: Mapping[str, Any] | None = None,
        sender: str | None = None,
        session: Any = None,
    ) -> str:
        """Accept one SMS and return its uuid; a worker sends it.

        ``key`` names a configuration (None: the default one). ``send_at`` and ``expires_at`` are
        aware datetimes (None: now; four hours later). The same ``idempotency_key`` with the same
        message returns the same uuid. ``priority`` is high, normal or bulk. With ``session`` the
        message is sent if and only if that session's transaction commits.

        Raises :class:`InvalidMessage`, :class:`ConfigNotFound`, :class:`IdempotencyConflict`, and
        :class:`SessionConflict` where it would wait for, or commit, your own transaction (SQLite).
        """
        draft = {
            "destination": destination,
            "msg": msg,
            "send_at": send_at,
            "expires_at": expires_at,
            "idempotency_key": idempotency_key,
            "priority": priority,
            "metadata": metadata,
            "sender": sender,
        }
        return SMS._accept([draft], key, session, "normal")[0]

    @staticmethod
    def send_bulk(
        items: Sequence[Mapping[str, Any]], key: str | int | None = None, *, session: Any = None
    ) -> list[str]:
        """Accept many SMS in one transaction, all or none, and return their uuids in order.

        Each item has ``destination`` and ``msg``, and may have what :meth:`send_msg` takes besides;
        the priority is bulk unless it says otherwise, and ``key`` is for those without their own.
        Raises what :meth:`send_msg` raises, and names the item.
        """
        return SMS._accept(items, key, session, "bulk")

    @staticmethod
    def _accept(
        items: Sequence[Mapping[str, Any]], key: str | int | None, session: Any, priority: str
    ) -> list[str]:
        state = current()
        drafts: list[dict[str, Any]] = []
        wrong: dict[str, Sequence[str]] = {}
        for place, item in enumerate(items):
            try:
                drafts.append(_draft(item, state.settings, priority))
            except InvalidMessage as invalid:
                prefix = f"[{place}]." if len(items) > 1 else ""
                wrong |= {prefix + name: reasons for name, reasons in invalid.errors.items()}
        if wrong:
            raise InvalidMessage(wrong)
        return accept.accept(state, CHANNEL, drafts, key, session)

    @staticmethod
    def retry_send(msg_uuid: str, force: bool = False) -> str:
        """Send an SMS again and return its uuid; one that waits for its turn is sent at once.

        Raises :class:`MessageNotFound`, or :class:`NotRetryable` where it could ring twice;
        ``force`` takes that risk.
        """
        return actions.retry(current(), CHANNEL, msg_uuid, LIFETIME, force=force)

    @staticmethod
    def cancel(msg_uuid: str) -> str:
        """Stop an SMS that has not left, and return its uuid.

        Raises :class:`MessageNotFound`, or :class:`NotCancellable` if it has left or may have.
        """
        return actions.cancel(current(), CHANNEL, msg_uuid)

    @staticmethod
    def resolve(msg_uuid: str, decision: str) -> str:
        """Say what became of an ``unknown`` SMS: ``sent``, ``resend`` or ``drop``; return its uuid.

        Raises :class:`MessageNotFound`, :class:`InvalidQuery`, or :class:`NotResolvable`.
        """
        return actions.resolve(current(), CHANNEL, msg_uuid, decision, LIFETIME)

    @staticmethod
    def release(msg_uuid: str) -> str:
        """Let a ``held`` SMS pass and return its uuid; limits stop it no more, a suppression does.

        Raises :class:`MessageNotFound`, or :class:`NotReleasable` if it is not held.
        """
        return actions.release(current(), CHANNEL, msg_uuid, LIFETIME)

    @staticmethod
    def receive(
        source: str,
        destination: str,
        msg: str,
        key: str | int | None = None,
        provider_ref: str | None = None,
    ) -> str:
        """Store an SMS that ``source`` sent to our number ``destination``, and return its uuid.

        The same ``provider_ref`` is stored and announced once. STOP, STOPALL, UNSUBSCRIBE, CANCEL,
        END or QUIT suppresses the source for this number, and for messages without a sender that go
        by the configuration ``key`` (None: the default one); START, YES or UNSTOP lifts that.

        Raises :class:`InvalidMessage` and :class:`ConfigNotFound`.
        """
        state = current()
        mail = incoming.Incoming(
            incoming.number(_line("source", source), state.settings.default_region),
            _line("destination", destination),
            drafting.text("msg", msg, LONGEST_RECEIVED),
        )
        ref = drafting.line("provider_ref", provider_ref, drafting.MAX_KEY)
        return incoming.receive(state, CHANNEL, mail, key, ref)

    @staticmethod
    def suppress(
        destination: str,
        sender: str | None = None,
        reason: str = "manual",
        *,
        key: str | int | None = None,
        detail: str | None = None,
    ) -> None:
        """Send no more SMS to a recipient: by nobody, or one ``sender``, or one configuration (``key``).

        ``reason`` is stop, opted_out, bounce, complaint or manual. Raises :class:`InvalidMessage`,
        :class:`InvalidQuery` and :class:`ConfigNotFound`.
        """
        state = current()
        to, by = (
            number(destination, state.settings.default_region),
            drafting.line("sender", sender, 320),
        )
        about = None if detail is None else drafting.text("detail", detail, 500)
        suppression.suppress(state, CHANNEL, to, by, key, reason, about)

    @staticmethod
    def unsuppress(
        destination: str, sender: str | None = None, *, key: str | int | None = None
    ) -> None:
        """Take back a :meth:`suppress` of the same recipient with the same ``sender`` or ``key``.

        Raises :class:`SuppressionNotFound`, which lists what there is, and what :meth:`suppress`
        raises.
        """
        state = current()
        to, by = (
            number(destination, state.settings.default_region),
            drafting.line("sender", sender, 320),
        )
        suppression.unsuppress(state, CHANNEL, to, by, key)

    @staticmethod
    def suppressed(
        destination: str | None = None, after: str | None = None, limit: int = 50
    ) -> Suppressed:
        """Return a page of suppressions, newest first: ``items``, and ``next`` to pass as ``after``.

        Raises :class:`InvalidQuery` that names the filter.
        """
        return suppression.page(current(), CHANNEL, destination, after, limit)

    @staticmethod
    def sync_delivery_report(progress: Callable[[int], None] = lambda asked: None) -> SyncResult:
        """Ask the providers now, in this process, about every SMS without a final report.

        ``progress`` is called now and then with the number asked about so far.
        """
        state = current()
        result, moved = reports.sync(state, CHANNEL, progress)
        announce(state.app, moved)
        return result

    @staticmethod
    def get(msg_uuid: str) -> Message:
        """Return one SMS with its attempts and events; raise :class:`MessageNotFound`."""
        return messages.get(current(), CHANNEL, msg_uuid)

    @staticmethod
    def messages(
        status: str | None = None,
        destination: str | None = None,
        key: str | int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Return a page of SMS, newest first: ``items``, and ``next`` to pass as ``after``.

        ``since`` is inclusive, ``until`` is not. Raises :class:`InvalidQuery` that names the
        filter.
        """
        return messages.page(
            current(),
            CHANNEL,
            status=status,
            destination=destination,
            key=key,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )

    @staticmethod
    def erase(destination: str) -> Erased:
        """Delete every message to and from a recipient, of all channels; return (deleted, left).

        What is being sent at this moment is left, and counted; opt-outs stay.
        """
        return erasure.erase(current(), destination)

    @staticmethod
    def estimate(text: str) -> Estimate:
        """Count what a text costs, and name the characters that make it dearer; needs no app."""
        return segments.estimate(text)


def statuses(uuids: Sequence[str]) -> dict[str, str]:
    """Return the statuses of those SMS that exist: uuid -> status."""
    return messages.statuses(current(), CHANNEL, uuids)


def _draft(item: Mapping[str, Any], settings: Settings, priority: str) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise InvalidMessage('each message must be a dictionary with "destination" and "msg"')
    strangers = sorted(map(str, set(item) - _FIELDS))
    if strangers:
        raise InvalidMessage({name: ["is not a field of a message"] for name in strangers})
    return {
        "destination": number(item.get("destination"), settings.default_region),
        "body": _body(item.get("msg")),
        "sender": drafting.line("sender", item.get("sender"), 320) or settings.default_sender,
        "key": drafting.key(item.get("key")),
        **drafting.options({**item, "priority": item.get("priority") or priority}, LIFETIME),
    }


def _body(raw: Any) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise InvalidMessage({"msg": ["must be a text that is not empty"]})
    drafting.storable("msg", raw)
    # Before counting: what is far too long is not worth counting.
    if len(raw) > MOST_SEGMENTS * 153 or segments.estimate(raw).segments > MOST_SEGMENTS:
        raise InvalidMessage({"msg": [f"is too long: an SMS has at most {MOST_SEGMENTS} segments"]})
    return raw


def _line(name: str, raw: Any) -> str:
    if raw is None:
        raise InvalidMessage({name: ["must be a number, or a name"]})
    return drafting.line(name, raw, 320) or ""
