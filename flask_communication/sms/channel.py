"""SMS as a channel of delivery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..configs.routes import Route
from ..configs.settings import Settings
from ..delivery.channel import Channel
from ..delivery.outcomes import Dispatch, Result
from ..formats.numbers import parse_number
from ..providers.base import OutboundSMS, Provider, Report


class SMSChannel(Channel):
    """Messages to one phone number; a provider may take many of them by one request."""

    name = "sms"

    def parse_recipient(self, raw: str, settings: Settings) -> str:
        """Return a phone number in E.164 form; raise :class:`InvalidMessage`."""
        return parse_number(raw, settings.default_region)

    def batch_size(self, route: Route) -> int:
        """Return how many SMS one request to the route's provider may carry."""
        return route.batch

    def send(
        self, settings: Settings, dispatches: Sequence[Dispatch], payload: object
    ) -> Sequence[Result]:
        """Send these SMS by one request."""
        route = dispatches[0].route
        assert route.provider is not None
        batch = [self._outbound(one, settings) for one in dispatches]
        if len(batch) > 1:
            return route.provider.send_sms_bulk(batch, route.config)
        is_retry = dispatches[0].claim.is_retry
        send = route.provider.retry_sms if is_retry else route.provider.send_sms
        return [send(batch[0], route.config)]

    def _outbound(self, dispatch: Dispatch, settings: Settings) -> OutboundSMS:
        claim = dispatch.claim
        return OutboundSMS(
            key=claim.key,
            destination=self.recipient(claim, settings) or "",
            msg=claim.body,
            sender=claim.sender,
            provider_ref=claim.provider_ref if claim.is_retry else None,
            metadata=claim.metadata,
        )

    def fetch_reports(
        self, provider: Provider, refs: Sequence[str], config: Mapping[str, Any]
    ) -> Sequence[Report]:
        """Ask a provider for the delivery reports of SMS."""
        return provider.sms_reports(refs, config)


CHANNEL = SMSChannel()
