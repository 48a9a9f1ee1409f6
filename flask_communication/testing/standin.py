"""The stand-in of a provider in test mode: it answers in its place, and sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..providers.base import Accepted, OutboundEmail, OutboundSMS, Provider, ProviderError, Report
from ..providers.simulator import STORIES, Simulator


class StandIn(Simulator):
    """The simulator under the name of a provider, with its settings and channels.

    Its reports give the last status of every story at once. It does not promise to ignore repeats,
    so an ``unknown`` message stays unknown and is not repeated by a worker after the test.
    """

    def __init__(self, provider: Provider) -> None:
        # No learn(): that could be a request.
        can = provider.capabilities
        self.name, self.label = provider.name, can.label
        # Only the simulator's own settings mean anything to it.
        self._obeys = isinstance(provider, Simulator)
        self.config_schema = can.config_schema
        if can.known:
            self.types = can.types
            self.features = can.features & {"bulk"}
            self.bulk_limit = can.bulk_limit

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Play the story of the destination."""
        return super().send_sms(sms, self._own(config))

    def retry_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Play the story of the destination, whatever its reference."""
        return self.send_sms(sms, config)

    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        """Play the story of each message."""
        return super().send_sms_bulk(batch, self._own(config))

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        """Play the story of each recipient."""
        return super().send_email(email, self._own(config))

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Report how each story ends, without waiting for it."""
        endings = {ref: STORIES[_story_of(ref)].reports[-1:] for ref in refs}
        return [Report(ref, ending[0]) for ref, ending in endings.items() if ending]

    def _own(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return config if self._obeys else {}


def _story_of(ref: str) -> str:
    # A message from before test mode has a reference of its provider, and was delivered.
    word = ref.split("-")[1] if ref.startswith("sim-") and ref.count("-") == 3 else ""
    return word if word in STORIES else "delivered"
