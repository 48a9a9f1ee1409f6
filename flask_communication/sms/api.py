"""The class ``SMS``: send, receive and follow SMS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..configs.settings import Settings
from ..configs.state import current
from ..delivery import accept
from ..delivery.accept import Draft
from ..delivery.api import MessageAPI
from ..delivery.policy.suppression import Suppressed
from ..delivery.reports import SyncResult
from ..errors import InvalidMessage
from ..formats import segments
from ..formats.numbers import parse_number, parse_sender
from ..formats.segments import MOST_SEGMENTS, Estimate
from ..formats.text import line, multiline, storable
from ..storage.database import HostSession
from ..storage.messages import Page
from . import incoming
from .channel import CHANNEL

__all__ = ["SMS", "Estimate", "Page", "Suppressed", "SyncResult"]

# Ten times what a telephone can send in one message.
LONGEST_RECEIVED = 16_000
_FIELDS = frozenset({"destination", "msg", "sender", "key", *accept.OPTIONS})


class SMS(MessageAPI):
    """Send SMS, follow them, and decide about those that need a person."""

    channel = CHANNEL

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
        session: HostSession | None = None,
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
        items: Sequence[Mapping[str, Any]],
        key: str | int | None = None,
        *,
        session: HostSession | None = None,
    ) -> list[str]:
        """Accept many SMS in one transaction, all or none, and return their uuids in order.

        Each item has ``destination`` and ``msg``, and may have what :meth:`send_msg` takes besides;
        the priority is bulk unless it says otherwise, and ``key`` is for those without their own.
        Raises what :meth:`send_msg` raises, and names the item.
        """
        return SMS._accept(items, key, session, "bulk")

    @staticmethod
    def _accept(
        items: Sequence[Mapping[str, Any]],
        key: str | int | None,
        session: HostSession | None,
        priority: str,
    ) -> list[str]:
        state = current()
        drafts = accept.check_all(items, lambda one: _draft(one, state.settings, priority))
        return accept.accept(state, CHANNEL, drafts, key, session)

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
            parse_sender(_line("source", source), state.settings.default_region),
            _line("destination", destination),
            multiline("msg", msg, LONGEST_RECEIVED),
        )
        ref = line("provider_ref", provider_ref, accept.MAX_KEY)
        return incoming.receive(state, CHANNEL.name, mail, key, ref)

    @staticmethod
    def estimate(text: str) -> Estimate:
        """Count what a text costs, and name the characters that make it dearer; needs no app."""
        return segments.estimate(text)


def _draft(item: Mapping[str, Any], settings: Settings, priority: str) -> Draft:
    if not isinstance(item, Mapping):
        raise InvalidMessage('each message must be a dictionary with "destination" and "msg"')
    unknown = sorted(map(str, set(item) - _FIELDS))
    if unknown:
        raise InvalidMessage({name: ["is not a field of a message"] for name in unknown})
    given = {**item, "priority": item.get("priority") or priority}
    return Draft(
        parse_number(item.get("destination"), settings.default_region),
        _body(item.get("msg")),
        line("sender", item.get("sender"), 320) or settings.default_sender,
        accept.key(item.get("key")),
        accept.options(given, CHANNEL.lifetime),
    )


def _body(raw: object) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise InvalidMessage({"msg": ["must be a text that is not empty"]})
    storable("msg", raw)
    # Before counting: what is far too long is not worth counting.
    if len(raw) > MOST_SEGMENTS * 153 or segments.estimate(raw).segments > MOST_SEGMENTS:
        raise InvalidMessage({"msg": [f"is too long: an SMS has at most {MOST_SEGMENTS} segments"]})
    return raw


def _line(name: str, raw: object) -> str:
    if raw is None:
        raise InvalidMessage({name: ["must be a number, or a name"]})
    return line(name, raw, 320) or ""
