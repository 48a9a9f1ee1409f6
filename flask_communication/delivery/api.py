"""The methods that every channel offers its users: retry, cancel, resolve, suppress, list …"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import ClassVar

from ..configs.state import current
from ..signals import announce
from ..storage import messages, retention
from ..storage.messages import Page
from ..storage.models import Message
from ..storage.retention import Erased
from . import actions, reports
from .channel import Channel
from .policy import suppression
from .policy.suppression import Suppressed
from .reports import SyncResult


class MessageAPI:
    """What a user calls to follow the messages of one channel, and to decide about them."""

    __slots__ = ()

    channel: ClassVar[Channel]

    @classmethod
    def retry_send(cls, msg_uuid: str, force: bool = False) -> str:
        """Send a message again and return its uuid; one that waits for its turn is sent at once.

        An email goes to those it has not reached. Raises :class:`MessageNotFound`, or
        :class:`NotRetryable` where it could arrive twice; ``force`` takes that risk.
        """
        return actions.retry(current(), cls.channel, msg_uuid, force=force)

    @classmethod
    def cancel(cls, msg_uuid: str) -> str:
        """Stop a message that has not left, and return its uuid.

        Raises :class:`MessageNotFound`, or :class:`NotCancellable` if it has left or may have.
        """
        return actions.cancel(current(), cls.channel, msg_uuid)

    @classmethod
    def resolve(cls, msg_uuid: str, decision: str) -> str:
        """Store what became of an ``unknown`` message; return its uuid.

        ``decision`` is ``sent``, ``resend`` or ``drop``. Raises :class:`MessageNotFound`,
        :class:`InvalidQuery`, or :class:`NotResolvable`.
        """
        return actions.resolve(current(), cls.channel, msg_uuid, decision)

    @classmethod
    def release(cls, msg_uuid: str) -> str:
        """Let a ``held`` message pass and return its uuid.

        Limits do not stop it any more, a suppression does. Raises :class:`MessageNotFound`, or
        :class:`NotReleasable` if it is not held.
        """
        return actions.release(current(), cls.channel, msg_uuid)

    @classmethod
    def suppress(
        cls,
        destination: str,
        sender: str | None = None,
        reason: str = "manual",
        *,
        key: str | int | None = None,
        detail: str | None = None,
    ) -> None:
        """Send nothing more to a recipient: from nobody, one ``sender``, or one configuration.

        ``key`` names the configuration; ``reason`` is stop, opted_out, bounce, complaint or manual.
        Raises :class:`InvalidMessage`, :class:`InvalidQuery` and :class:`ConfigNotFound`.
        """
        actions.suppress(
            current(), destination, sender, reason, key=key, detail=detail, channel=cls.channel
        )

    @classmethod
    def unsuppress(
        cls, destination: str, sender: str | None = None, *, key: str | int | None = None
    ) -> None:
        """Take back a :meth:`suppress` of the same recipient with the same ``sender`` or ``key``.

        Raises :class:`SuppressionNotFound`, which lists what there is, and what :meth:`suppress`
        raises.
        """
        actions.unsuppress(current(), destination, sender, key=key, channel=cls.channel)

    @classmethod
    def suppressed(
        cls, destination: str | None = None, after: str | None = None, limit: int = 50
    ) -> Suppressed:
        """Return a page of suppressions, newest first.

        It has ``items``, and ``next`` to pass as ``after``.

        Raises :class:`InvalidMessage` and :class:`InvalidQuery` that names the filter.
        """
        state = current()
        asked = cls.channel.suppression_filter(destination, state.settings)
        return suppression.page(state, cls.channel.name, asked, after, limit)

    @classmethod
    def sync_delivery_report(
        cls, progress: Callable[[int], None] = lambda _asked: None
    ) -> SyncResult:
        """Ask the providers now, in this process, about every message without a final report.

        ``progress`` is called now and then with the number asked about so far.
        """
        state = current()
        result, moved = reports.sync(state, cls.channel, progress)
        announce(state.app, moved)
        return result

    @classmethod
    def get(cls, msg_uuid: str) -> Message:
        """Return one message with its attempts and events; raise :class:`MessageNotFound`."""
        return messages.get(current().database, cls.channel.name, msg_uuid)

    @classmethod
    def statuses(cls, msg_uuids: Sequence[str]) -> dict[str, str]:
        """Return the statuses of those messages that exist: uuid -> status."""
        return messages.statuses(current().database, cls.channel.name, msg_uuids)

    @classmethod
    def messages(
        cls,
        status: str | None = None,
        destination: str | None = None,
        key: str | int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Return a page of messages, newest first: ``items``, and ``next`` to pass as ``after``.

        ``since`` is inclusive, ``until`` is not. Raises :class:`InvalidQuery`, which names the
        filter.
        """
        state = current()
        return messages.page(
            state.database,
            cls.channel.name,
            status=status,
            destination=destination,
            key=key,
            since=since,
            until=until,
            after=after,
            limit=limit,
            region=state.settings.default_region,
            channels=state.channels,
        )

    @classmethod
    def erase(cls, destination: str) -> Erased:
        """Delete every message of this channel to and from a recipient; return (deleted, left).

        What is being sent at this moment is left, and counted; opt-outs stay.
        """
        state = current()
        names = [cls.channel.name]
        region = state.settings.default_region
        return retention.erase(state.database, region, destination, names)
