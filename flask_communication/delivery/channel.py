"""What delivery asks of a channel (SMS, email, telephony): the base class of every channel.

The defaults are those of a message to one recipient that is sent by itself. Everything is asked
once for a batch of messages, and a channel keeps no state: one object serves every application.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy.engine import Connection

from ..configs.routes import Route
from ..configs.settings import Settings
from ..configs.state import State
from ..errors import InvalidMessage
from ..providers.base import Provider, Report
from ..storage import messages
from ..storage.files import Files
from ..storage.models import status
from . import outcomes
from .outcomes import Dispatch, Result
from .policy import guards, suppression
from .transitions import Claim, Dismissal, Settlement


@dataclass(frozen=True)
class Sent:
    """A message that was handed to its provider, and the result."""

    dispatch: Dispatch
    result: Result


@dataclass(frozen=True)
class Applied:
    """The effect of reports about single recipients: which were news, and what messages follow."""

    news: Sequence[Report] = ()
    follows: Sequence[Report] = ()


class Channel:
    """One way of reaching people, as the delivery of messages sees it."""

    name: ClassVar[str]
    # Seconds until a message that could not be sent expires, unless its sender says otherwise.
    # GOV.UK Notify gives up after the same 4 hours.
    lifetime: ClassVar[float] = 4 * 3600.0
    # Seconds between attempts of a message that was not sent; the last one repeats.
    backoff: ClassVar[Sequence[float]] = outcomes.BACKOFF
    # Whether its recipients are phone numbers, which belong to countries and networks.
    by_number: ClassVar[bool] = True

    # --- Recipients

    def parse_recipient(self, raw: str, settings: Settings) -> str:
        """Return a recipient in its stored form; raise :class:`InvalidMessage`."""
        raise InvalidMessage({"destination": [f"{self.name} has no recipients"]})

    def is_recipient(self, text: str) -> bool:
        """Tell whether ``text`` looks like a recipient of this channel: an email address is not."""
        return "@" not in text

    def suppression_key(self, raw: str, settings: Settings) -> str:
        """Return the form in which suppressions keep a recipient; raise :class:`InvalidMessage`."""
        return self.parse_recipient(raw, settings)

    def suppression_filter(self, raw: str | None, settings: Settings) -> str | None:
        """Return what a search of suppressions looks for, in any of the forms people write."""
        return raw

    def parse_sender(self, raw: str) -> str:
        """Return a sender as messages name it; raise :class:`InvalidMessage`."""
        return raw

    def scope(self, sender: str | None, config_id: int | None) -> str:
        """Return the scope of suppressions: the sender, or the configuration that stands for it."""
        return suppression.sender_scope(sender) if sender else suppression.config_scope(config_id)

    # --- Accepting

    def store(self, connection: Connection, contents: Sequence[Content]) -> None:
        """Insert what belongs to new messages besides their rows, in the same transaction."""

    # --- Claiming

    def screen(self, connection: Connection, claims: Sequence[Claim]) -> Sequence[Dismissal]:
        """Return the dismissals of messages whose recipients are suppressed."""
        asked = [self._asked(one) for one in claims]
        why = suppression.find(connection, asked)
        return [outcomes.refusal(one, why[one.id]) for one in claims if one.id in why]

    def _asked(self, claim: Claim) -> suppression.Asked:
        return suppression.Asked(
            claim.id,
            claim.channel,
            claim.destination,
            self.scope(claim.sender, claim.config_id),
            # A fallback sends on behalf of the configuration that was asked for.
            self.scope(claim.sender, claim.route_id),
        )

    def foresee(self, connection: Connection, claim: Claim) -> str | None:
        """Return why the recipient would not be written to now, None if it would."""
        return suppression.find(connection, [self._asked(claim)]).get(claim.id)

    def dismissal(self, dispatch: Dispatch, settings: Settings) -> Dismissal | None:
        """Return why a claimed message is not sent now, None if it is sent."""
        found = outcomes.dismissal(dispatch)
        if found is None and self.recipient(dispatch.claim, settings) is None:
            why = "COMMUNICATION_ONLY_TO does not list the recipient"
            return Dismissal.of(dispatch.claim, status.REJECTED, why)
        return found

    def recipient(self, claim: Claim, settings: Settings) -> str | None:
        """Return to whom a message really goes in this deployment; None for nobody."""
        return guards.recipient(claim.destination, settings, self.is_recipient)

    # --- Sending

    def batch_size(self, route: Route) -> int:
        """Return how many messages one request may carry."""
        return 1

    def load(
        self, connection: Connection, dispatches: Sequence[Dispatch], files: Files
    ) -> Mapping[int, object]:
        """Return what a request needs besides the claim, by message id."""
        return {}

    def send(
        self, settings: Settings, dispatches: Sequence[Dispatch], payload: object
    ) -> Sequence[Result]:
        """Send these messages by one request, without SQL; return or raise their results."""
        raise NotImplementedError(f"{self.name} sends nothing")

    def settlement(
        self, dispatch: Dispatch, payload: object, result: Result, elapsed: float
    ) -> Settlement:
        """Return what becomes of a message by the result of its request."""
        return outcomes.settlement(dispatch, result, elapsed, self.backoff)

    def settled(self, connection: Connection, settlements: Sequence[Settlement]) -> None:
        """Store what settlements say of single recipients."""

    def learn(self, connection: Connection, sent: Sequence[Sent]) -> None:
        """Suppress the recipients of whom a provider said that they opted out."""
        suppression.store(
            connection,
            [
                suppression.NewSuppression(
                    one.dispatch.claim.channel,
                    one.dispatch.claim.destination,
                    self.scope(one.dispatch.claim.sender, one.dispatch.route.config_id),
                    "opted_out",
                    suppression.detail_of(one.result),
                )
                for one in sent
                if suppression.opted_out(one.result)
            ],
        )

    # --- Reports

    def fetch_reports(
        self, provider: Provider, refs: Sequence[str], config: Mapping[str, Any]
    ) -> Sequence[Report]:
        """Ask a provider for delivery reports."""
        return ()

    def reports_come(self, provider: Provider) -> bool:
        """Tell whether a provider can be asked for delivery reports."""
        return True

    def apply_reports(
        self, connection: Connection, config_id: int, reports: Sequence[Report]
    ) -> Applied:
        """Apply reports about single recipients of a message."""
        return Applied()

    def learn_from_reports(
        self, connection: Connection, config_id: int, reports: Sequence[Report]
    ) -> None:
        """Suppress the recipients of whom delivery reports say that they opted out."""
        suppression.learn_from_reports(connection, config_id, reports, self.scope)

    # --- A person's decisions

    def reopen(self, connection: Connection, message_id: int, *, everybody: bool) -> None:
        """Let a message that is sent again go to those it has not reached, or to everybody."""

    def part_recipients(self, connection: Connection, uuid: str) -> bool:
        """Give each recipient of a message its own status; return False if it has only one."""
        return False

    def reopen_refused(self, connection: Connection, message_id: int) -> None:
        """Let a message that is sent again go only to the recipients that were refused."""

    # --- A worker's other work

    def background(self, state: State, stop: Callable[[], bool]) -> None:
        """Do what is due besides sending, such as reading a mailbox, until ``stop()`` says so."""

    def has_background_work(self, state: State) -> bool:
        """Tell whether :meth:`background` has anything to do now."""
        return False


@dataclass(frozen=True)
class Content:
    """What belongs to a new message besides its row."""

    uuid: str
    sender: str | None
    content: object


def channel_of(state: State, name: str) -> Channel:
    """Return a channel of this application; raise :class:`InvalidMessage` for one it has not."""
    found = state.channels.get(name)
    if not isinstance(found, Channel):
        raise InvalidMessage({"channel": [f"must be one of {', '.join(state.channels)}"]})
    return found


def channel_of_message(state: State, uuid: str) -> Channel:
    """Return the channel of a message; raise :class:`MessageNotFound`."""
    return channel_of(state, messages.get(state.database, None, uuid).channel)


def channel_of_recipient(state: State, recipient: str) -> Channel:
    """Return the first channel that a recipient looks like: email for an address, else SMS."""
    found = next((one for one in channels_of(state) if one.is_recipient(recipient)), None)
    if found is None:
        raise InvalidMessage({"destination": ["is a recipient of no channel"]})
    return found


def by_number(state: State) -> frozenset[str]:
    """Return the names of the channels whose recipients are phone numbers."""
    return frozenset(one.name for one in channels_of(state) if one.by_number)


def channels_of(state: State) -> list[Channel]:
    """Return the channels of this application."""
    return [channel_of(state, name) for name in state.channels]
