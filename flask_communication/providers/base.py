"""The base class of providers, and the values that a provider takes and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, get_args

from ..errors import Denied, NotSent, OutcomeUnknown, ProviderError, Refused
from ..formats.files import File

__all__ = [
    "Accepted",
    "Capabilities",
    "Denied",
    "File",
    "InboundEmail",
    "Inbox",
    "NotSent",
    "OutboundEmail",
    "OutboundSMS",
    "OutcomeUnknown",
    "Provider",
    "ProviderError",
    "Refused",
    "Report",
]


@dataclass(frozen=True)
class OutboundSMS:
    """An outgoing SMS.

    ``key`` is the idempotency key: it stays the same for every attempt at the same message, and
    changes only when a person decides to send again. ``provider_ref`` is the provider's own id of
    the message from an earlier acceptance; it is set only for a retry of that message.
    """

    key: str
    destination: str
    msg: str = field(repr=False)
    sender: str | None = None
    provider_ref: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OutboundEmail:
    """An outgoing email.

    ``sender``, ``to``, ``cc`` and ``reply_to`` are mailboxes as a header shows them ("Ann
    <ann@x.example>"); ``recipients`` are the bare addresses of this request: all of to, cc and
    bcc, less those that an earlier attempt reached. ``message_id`` is ours (RFC 5322 §3.6.4, with
    its angle brackets) and stays the same for every attempt, as ``key`` does. ``headers`` are extra
    ones, already checked.
    """

    key: str
    message_id: str
    sender: str
    recipients: Sequence[str]
    subject: str
    body: str = field(repr=False)
    html: str | None = field(default=None, repr=False)
    to: Sequence[str] = ()
    cc: Sequence[str] = ()
    reply_to: Sequence[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    in_reply_to: str | None = None
    references: Sequence[str] = ()
    files: Sequence[File] = ()
    provider_ref: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Accepted:
    """The provider has accepted the message, and gave it the id ``ref``.

    ``failed`` has the recipients of an email that it did not accept, each with its failure.
    """

    ref: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    failed: Mapping[str, ProviderError] = field(default_factory=dict)


# The most bytes of one mail, and of all mails of one fetch_inbox.
LARGEST_MAIL = 25_000_000
MOST_MAIL_BYTES = 2 * LARGEST_MAIL


@dataclass(frozen=True)
class InboundEmail:
    """A mail of a mailbox, as it came; no other mail of the mailbox ever has the same ``uid``.

    ``flaw`` says why ``raw`` is not the whole mail but its headers, or empty.
    """

    uid: str
    raw: bytes = field(repr=False)
    folder: str = "INBOX"
    received_at: datetime | None = None
    flaw: str | None = None


@dataclass(frozen=True)
class Inbox:
    """The next new mails of a mailbox.

    ``cursor`` is passed to the next ``fetch_inbox``. It is stored together with ``mails``, and may
    be any small JSON object. ``more`` says that there are more new mails now.
    """

    mails: Sequence[InboundEmail]
    cursor: Mapping[str, Any]
    more: bool = False


# The statuses of a delivery report.
ReportStatus = Literal["sent", "undelivered", "delivered", "read"]
REPORT_STATUSES: frozenset[str] = frozenset(get_args(ReportStatus))


@dataclass(frozen=True)
class Report:
    """A delivery report of a message.

    ``event_id`` is the provider's own id of this report, if it has one; it shows duplicates.
    ``recipient`` is set where an email went to several and the report is about one of them.
    ``opted_out`` says that the recipient wants nothing more from this sender.
    """

    ref: str
    status: ReportStatus
    detail: str | None = None
    code: str | None = None
    event_id: str | None = None
    occurred_at: datetime | None = None
    recipient: str | None = None
    opted_out: bool = False


@dataclass(frozen=True)
class Capabilities:
    """What a provider can do: its channels, its features, its settings, and its times in seconds.

    ``config_schema`` is the JSON Schema of its configuration: a property with ``writeOnly: true``
    is a secret, ``destination: true`` says where secrets are sent, and a property that is not
    listed counts as a secret. ``idempotency_window``: the provider ignores a second request with
    the same key for so long, 0 means never. ``report_after``: when the first delivery report makes
    sense. ``bulk_limit``: the most messages of one ``send_sms_bulk``, used only with the feature
    ``bulk``. ``known`` is False until a provider that must ask a server has its answer; the rest
    is then the defaults.
    """

    label: str = ""
    types: tuple[str, ...] = ("sms",)
    features: frozenset[str] = frozenset()
    config_schema: Mapping[str, Any] | None = None
    idempotency_window: float = 0.0
    report_after: float = 60.0
    bulk_limit: int = 500
    known: bool = True


class Provider:
    """The base class of all providers: give it a name, and implement what its ``types`` promise.

    Every method gets ``config``, the decrypted dictionary that the operator stored. A send returns
    :class:`Accepted` or raises :class:`NotSent` (certainly did not leave), :class:`Refused` (said
    no), :class:`Denied` (said no to us, whatever we send) or :class:`OutcomeUnknown` (may have
    left). Any other exception counts as *unknown*. Methods run in several threads at once, so
    instances must not keep state between requests.
    """

    name: str = ""
    # What it can do, field by field; see Capabilities.
    label: str = Capabilities.label
    types: Sequence[str] = Capabilities.types
    features: frozenset[str] = Capabilities.features
    config_schema: Mapping[str, Any] | None = Capabilities.config_schema
    idempotency_window: float = Capabilities.idempotency_window
    report_after: float = Capabilities.report_after
    bulk_limit: int = Capabilities.bulk_limit

    @property
    def capabilities(self) -> Capabilities:
        """What the provider can do, as far as it is known now; no request is made."""
        declared = {name: getattr(self, name) for name in _DECLARED}
        declared["types"] = tuple(declared["types"])
        declared["features"] = frozenset(declared["features"])
        return Capabilities(**declared)

    def learn(self) -> Capabilities:
        """Find out what the provider can do, and return it; never raises.

        This is the only place for a request about that. It runs in a worker thread before the first
        message, and may block for one request. What cannot be found out counts as absent.
        """
        return self.capabilities

    def check(self, config: Mapping[str, Any]) -> str | None:
        """Check, without sending anything, that the provider can be reached and accepts the login.

        Return the result for a person to read, or None where there is nothing to try. Raise a
        :class:`ProviderError` that says what is wrong.
        """
        return None

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Send one SMS; return :class:`Accepted` or raise a :class:`ProviderError`."""
        raise Refused(f"{self.name} does not send SMS")

    def retry_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Send the message ``sms.provider_ref`` again; by default, as a new message."""
        return self.send_sms(sms, config)

    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        """Send many SMS in one request; return one result each, in order (feature ``bulk``).

        An exception raised here, rather than returned, is the outcome of the whole batch.
        """
        raise NotImplementedError(f"{self.name} promises bulk and has no send_sms_bulk")

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        """Send an email to its ``recipients``; return :class:`Accepted` if any was accepted.

        The failures of single recipients go into ``Accepted.failed``. If all failed in the same
        way, raise that :class:`ProviderError` instead.
        """
        raise Refused(f"{self.name} does not send email")

    def email_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Fetch the delivery reports of emails; leave out those that are not known yet."""
        return ()

    def has_inbox(self, config: Mapping[str, Any]) -> bool:
        """Tell whether the configuration has a mailbox; by default by the feature ``inbox``."""
        return "inbox" in self.capabilities.features

    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        """Fetch up to ``limit`` mails that are new since ``cursor``, which is empty the first time.

        Each has at most 25 MB, all together 50 MB. Raise a :class:`ProviderError` when the mailbox
        could not be read; nothing is lost then.
        """
        raise Refused(f"{self.name} has no inbox")

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Fetch the delivery reports of SMS; leave out those that are not known yet.

        Raise a :class:`ProviderError` when the provider cannot be reached, or refuses.
        """
        return ()


# Authors declare these as attributes of their class; ``known`` only matters to RemoteProvider.
_DECLARED = tuple(one.name for one in fields(Capabilities) if one.name != "known")
