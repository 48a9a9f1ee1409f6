"""Email as a channel of delivery: its recipients, its requests, its outcomes and its reports."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.engine import Connection

from ..configs.settings import Settings
from ..configs.state import State
from ..delivery import outcomes
from ..delivery.channel import Applied, Channel, Content, Sent
from ..delivery.outcomes import Dispatch, Result
from ..delivery.policy import guards, suppression
from ..delivery.transitions import Claim, Dismissal, RecipientOutcome, Settlement
from ..errors import NotSent, OutcomeUnknown, ProviderError, Refused
from ..formats import addresses
from ..formats.text import clean
from ..providers.base import Accepted, OutboundEmail, Provider, Report
from ..storage.files import Files
from ..storage.models import status
from . import inbox, records
from .records import StoredMail


@dataclass(frozen=True)
class Payload:
    """A stored email, ready for a request; ``reached``: some recipients have it already."""

    email: OutboundEmail
    reached: bool


class EmailChannel(Channel):
    """Messages to several recipients, each of which may have an outcome of its own."""

    name = "email"
    # An email may be late; after a day its sender should know that it did not go.
    lifetime = 24 * 3600.0
    # Mail servers ask for patience more often than others do (greylisting).
    backoff = (10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)
    by_number = False

    def parse_recipient(self, raw: str, settings: Settings) -> str:
        """Return the bare address of a mailbox; raise :class:`InvalidMessage`."""
        return addresses.bare(addresses.mailbox("destination", raw))

    def is_recipient(self, text: str) -> bool:
        """Tell whether ``text`` looks like an email address."""
        return "@" in text

    def suppression_key(self, raw: str, settings: Settings) -> str:
        """Return an address as suppressions keep it: in small letters."""
        return self.parse_recipient(raw, settings).lower()

    def suppression_filter(self, raw: str | None, settings: Settings) -> str | None:
        """Return the address of a search; raise :class:`InvalidMessage` for what is none."""
        return None if raw is None else self.suppression_key(raw, settings)

    def parse_sender(self, raw: str) -> str:
        """Return the bare address of a sender; raise :class:`InvalidMessage`."""
        return addresses.bare(addresses.mailbox("sender", raw))

    def scope(self, sender: str | None, config_id: int | None) -> str:
        """Return the scope of suppressions: the sender's address, or the configuration."""
        if not sender:
            return suppression.config_scope(config_id)
        return f"sender:{addresses.bare(sender).lower()[:320]}"

    def store(self, connection: Connection, contents: Sequence[Content]) -> None:
        """Insert the mails of new messages, with the Message-IDs that follow from their uuids."""
        drafts = [
            records.addressed(one.content, one.uuid, one.sender)
            for one in contents
            if isinstance(one.content, records.Draft)
        ]
        records.store(connection, drafts)

    def screen(self, connection: Connection, claims: Sequence[Claim]) -> Sequence[Dismissal]:
        """Take suppressed recipients out; return the dismissals of emails that have none left."""
        # One in doubt is repeated as it was: to other recipients it would be another message.
        by_id = {one.id: one for one in claims if not one.in_doubt}
        asked = [self._asked(one) for one in by_id.values()]
        ended = records.take_out_suppressed(connection, asked)
        return [Dismissal.of(by_id[one], *end) for one, end in ended.items()]

    def foresee(self, connection: Connection, claim: Claim) -> str | None:
        """Return why the recipient would not be written to now, None if it would."""
        return super().foresee(connection, replace(claim, destination=claim.destination.lower()))

    def dismissal(self, dispatch: Dispatch, settings: Settings) -> Dismissal | None:
        """Return why a claimed email is not sent now; the request looks at each recipient."""
        return outcomes.dismissal(dispatch)

    def load(
        self, connection: Connection, dispatches: Sequence[Dispatch], files: Files
    ) -> Mapping[int, Payload]:
        """Return the emails of these messages, for those recipients that have no outcome yet."""
        by_id = {one.claim.id: one for one in dispatches}
        stored = records.load(connection, list(by_id), files)
        payloads = {one: _payload(by_id[one], mail) for one, mail in stored.items()}
        names = {
            one: payloads[one].email.message_id
            for one, mail in stored.items()
            if mail.row.rfc_message_id != payloads[one].email.message_id
            and payloads[one].email.sender
        }
        records.remember_ids(connection, names)
        return payloads

    def send(
        self, settings: Settings, dispatches: Sequence[Dispatch], payload: object
    ) -> Sequence[Result]:
        """Send one email to the recipients that the guards of this deployment let through."""
        route = dispatches[0].route
        assert route.provider is not None
        if not isinstance(payload, Payload) or not payload.email.sender:
            why = "the email has no sender: say one, or set COMMUNICATION_DEFAULT_SENDER"
            raise Refused(why, only_this=True)
        goes_to = {one: self._goes_to(one, settings) for one in payload.email.recipients}
        recipients = list(dict.fromkeys(one for one in goes_to.values() if one is not None))
        if not recipients:
            why = "COMMUNICATION_ONLY_TO lists none of the recipients"
            raise Refused(why, only_this=True)
        email = replace(payload.email, recipients=recipients)
        return [_by_recipient(route.provider.send_email(email, route.config), goes_to)]

    def _goes_to(self, address: str, settings: Settings) -> str | None:
        return guards.recipient(address, settings, self.is_recipient)

    def settlement(
        self, dispatch: Dispatch, payload: object, result: Result, elapsed: float
    ) -> Settlement:
        """Return what becomes of an email, and of recipients with an outcome of their own.

        All others share the email's.
        """
        whole = super().settlement(dispatch, payload, result, elapsed)
        if not isinstance(payload, Payload):
            return whole
        if isinstance(result, Accepted) and result.failed:
            return self._partly(dispatch, payload, result, whole)
        is_rejected = whole.status == status.REJECTED
        if payload.reached and is_rejected and isinstance(result, Refused):
            told: dict[str, ProviderError | None] = dict.fromkeys(payload.email.recipients, result)
            delay = dispatch.route.report_after
            mine = _outcomes(dispatch.claim, told)
            return replace(whole, status=status.SENT, delay=delay, recipients=mine)
        return whole

    def _partly(
        self, dispatch: Dispatch, payload: Payload, result: Accepted, whole: Settlement
    ) -> Settlement:
        told = {one: result.failed.get(one) for one in payload.email.recipients}
        later = [one for one in told.values() if isinstance(one, NotSent)]
        doubted = [one for one in told.values() if isinstance(one, OutcomeUnknown)]
        failure = [*later, *doubted, *result.failed.values()][0]
        ended = {one: why for one, why in told.items() if not isinstance(why, NotSent)}
        whole = replace(
            whole,
            error=clean(_names(told, failure)),
            code=clean(failure.code, 50) if failure.code else None,
            recipients=_outcomes(dispatch.claim, ended),
        )
        if later:
            again = outcomes.settlement(dispatch, failure, 0.0, self.backoff)
            return replace(whole, status=status.QUEUED, delay=again.delay)
        if doubted:
            return replace(whole, status=status.UNKNOWN, delay=None)
        if payload.reached or any(one is None for one in told.values()):
            return whole
        return replace(whole, status=status.REJECTED, delay=None)

    def settled(self, connection: Connection, settlements: Sequence[Settlement]) -> None:
        """Store the outcomes of single recipients."""
        records.settle(connection, [one for each in settlements for one in each.recipients])

    def learn(self, connection: Connection, sent: Sequence[Sent]) -> None:
        """Learn nothing: what is said of an email is not said of each of its recipients."""

    def fetch_reports(
        self, provider: Provider, refs: Sequence[str], config: Mapping[str, Any]
    ) -> Sequence[Report]:
        """Ask a provider for the delivery reports of emails."""
        return provider.email_reports(refs, config)

    def reports_come(self, provider: Provider) -> bool:
        """Tell whether a provider can be asked for reports; a mail server cannot."""
        return type(provider).email_reports is not Provider.email_reports

    def apply_reports(
        self, connection: Connection, config_id: int, reports: Sequence[Report]
    ) -> Applied:
        """Apply reports about single recipients, and end emails whose recipients have all ended."""
        return records.report(connection, config_id, reports)

    def learn_from_reports(
        self, connection: Connection, config_id: int, reports: Sequence[Report]
    ) -> None:
        """Learn nothing: what is said of an email is not said of each of its recipients."""

    def reopen(self, connection: Connection, message_id: int, *, everybody: bool) -> None:
        """Let an email that is sent again go to those it has not reached, or to everybody."""
        records.reopen(connection, message_id, everybody=everybody)

    def part_recipients(self, connection: Connection, uuid: str) -> bool:
        """Give each recipient of an email that arrived the email's status as its own."""
        records.part(connection, uuid)
        return True

    def reopen_refused(self, connection: Connection, message_id: int) -> None:
        """Let an email that is sent again go only to the recipients that were refused."""
        records.reopen_refused(connection, message_id)

    def background(self, state: State, stop: Callable[[], bool]) -> None:
        """Read the mailboxes whose turn it is."""
        inbox.sync_due(state, stop)

    def has_background_work(self, state: State) -> bool:
        """Tell whether there is a mailbox to read."""
        return inbox.is_due(state)


def _by_recipient(result: object, goes_to: Mapping[str, str | None]) -> Accepted:
    """Return a result by the recipients of the email, whoever was written to instead of them."""
    if not isinstance(result, Accepted):
        raise OutcomeUnknown("the provider did not say whether it took the email")
    closed = Refused("COMMUNICATION_ONLY_TO does not list the recipient", only_this=True)
    failed = {one: closed if at is None else result.failed.get(at) for one, at in goes_to.items()}
    return replace(result, failed={one: why for one, why in failed.items() if why is not None})


def _payload(dispatch: Dispatch, mail: StoredMail) -> Payload:
    claim, row = dispatch.claim, mail.row
    pending = [person.address for person in mail.people if person.status is None]
    sender = claim.sender or str(dispatch.route.config.get("sender") or "")
    is_whole = len(pending) == len(mail.people)
    email = OutboundEmail(
        key=claim.key if is_whole else _key_of_some(claim, pending),
        message_id=_sendable(row.rfc_message_id)
        or records.message_id(claim.uuid, sender or "x@localhost"),
        sender=sender,
        recipients=pending,
        subject=row.subject,
        body=claim.body,
        html=row.html,
        to=row.mailboxes.get("to", ()),
        cc=row.mailboxes.get("cc", ()),
        reply_to=row.mailboxes.get("reply_to", ()),
        headers=row.headers,
        in_reply_to=row.in_reply_to,
        references=row.refs,
        files=mail.files,
        # To fewer it is another message, and the provider may know only the whole one.
        provider_ref=claim.provider_ref if claim.is_retry and is_whole else None,
    )
    return Payload(email, any(person.status in status.REPORTED for person in mail.people))


def _sendable(stored: str | None) -> str | None:
    # An earlier version made some that are not ASCII, which never went out.
    return stored if stored and stored.isascii() else None


def _key_of_some(claim: Claim, pending: Sequence[str]) -> str:
    # To fewer recipients it is another message, which a provider must not take for the first.
    return f"{claim.key}/{hashlib.sha256(' '.join(pending).encode()).hexdigest()[:12]}"


def _names(told: Mapping[str, ProviderError | None], failure: ProviderError) -> str:
    failed = [one for one, why in told.items() if why is not None]
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"{failed[0]}{more}: {failure.reason}"


def _outcomes(
    claim: Claim, told: Mapping[str, ProviderError | None]
) -> tuple[RecipientOutcome, ...]:
    return tuple(
        RecipientOutcome(
            claim.id,
            address,
            _status(why),
            clean(why.reason) if why else None,
            clean(why.code, 50) if why and why.code else None,
        )
        for address, why in told.items()
    )


def _status(why: ProviderError | None) -> str:
    if isinstance(why, Refused):
        return status.REJECTED
    return status.UNKNOWN if isinstance(why, OutcomeUnknown) else status.SENT


CHANNEL = EmailChannel()
