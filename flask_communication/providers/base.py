"""The kit: what a provider is. Everything else about providers is a way to reach one of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import NotSent, OutcomeUnknown, ProviderError, Refused

__all__ = [
    "Accepted",
    "NotSent",
    "OutcomeUnknown",
    "OutboundSMS",
    "Provider",
    "ProviderError",
    "Refused",
    "Report",
]


@dataclass(frozen=True)
class OutboundSMS:
    """One SMS on its way out.

    ``key`` is the idempotency key: it stays the same for every attempt at the same message, and
    changes only when a person decides to send again. ``provider_ref`` is the provider's own id
    of the message from an earlier acceptance, set only when this is a retry of that message.
    """

    key: str
    destination: str
    msg: str = field(repr=False)
    sender: str | None = None
    provider_ref: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Accepted:
    """The provider has taken the message; ``ref`` is the id it gave it."""

    ref: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a provider says became of a message.

    ``status`` is one of our words (see ``status.REPORTED``: sent, undelivered, delivered, read);
    ``event_id`` is the provider's own id of this report, used to see duplicates, if it has one.
    """

    ref: str
    status: str
    detail: str | None = None
    code: str | None = None
    event_id: str | None = None
    occurred_at: datetime | None = None


class Provider:
    """A way to reach people: subclass it, name it, and implement what its ``types`` promise.

    Every method gets ``config``, the decrypted dictionary that the operator stored. A send returns
    :class:`Accepted` or raises :class:`NotSent` (certainly did not leave), :class:`Refused` (said
    no) or :class:`OutcomeUnknown` (may have left). Any other exception counts as *unknown*. Methods
    are called from several threads at once, so instances must not keep state between calls.
    """

    name: str = ""
    label: str = ""
    types: Sequence[str] = ("sms",)
    features: frozenset[str] = frozenset()
    # JSON Schema of ``config``. A property with "writeOnly": true is a secret, "destination": true
    # says where secrets are sent; a property that is not listed counts as a secret.
    config_schema: Mapping[str, Any] | None = None
    # Seconds during which the provider ignores a second call with the same key; 0: it never does.
    idempotency_window: float = 0
    # Seconds until it makes sense to ask for the first delivery report.
    report_after: float = 60
    # The most messages one send_sms_bulk call may carry; used only with the "bulk" feature.
    bulk_limit: int = 500

    # False until learn() has run, for a provider that must ask somebody what it can do.
    is_known: bool = True

    def learn(self) -> None:
        """Find out what the provider can do; called in a worker thread before features are read.

        It may block for one call, and never raises: what cannot be found out is not there.
        """

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Send one SMS; return :class:`Accepted` or raise a :class:`ProviderError`."""
        raise Refused(f"{self.name} does not send SMS")

    def retry_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Send again what the provider knows as ``sms.provider_ref``; by default, send it anew."""
        return self.send_sms(sms, config)

    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        """Send many SMS in one call; return one result each, in order (feature ``bulk``).

        An exception raised here, rather than returned, is the outcome of the whole batch.
        """
        raise NotImplementedError(f"{self.name} promises bulk and has no send_sms_bulk")

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Fetch delivery reports; leave out what is not known yet.

        Raise a :class:`ProviderError` when the provider could not be asked, or refused.
        """
        return ()
