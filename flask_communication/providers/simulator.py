"""The simulator: a provider that sends nothing, for demonstrations, tests and rehearsals."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .base import (
    Accepted,
    NotSent,
    OutboundEmail,
    OutboundSMS,
    OutcomeUnknown,
    Provider,
    ProviderError,
    Refused,
    Report,
    ReportStatus,
)


@dataclass(frozen=True)
class _Story:
    """What happens to a message: reports one second apart, or a failure at once."""

    reports: tuple[ReportStatus, ...] = ()
    takes: float = 0.0
    failure: type[ProviderError] | None = None
    says: str = ""
    opted_out: bool = False


STORIES: dict[str, _Story] = {
    "delivered": _Story(("sent", "delivered")),
    "undelivered": _Story(("sent", "undelivered")),
    "slow": _Story(("sent", "delivered"), takes=2.0),
    "rejected": _Story(failure=Refused, says="this number is always rejected"),
    "throttled": _Story(failure=NotSent, says="too many messages; come back in a second"),
    "silent": _Story(),
    "unknown": _Story(failure=OutcomeUnknown, says="the line went dead after the message"),
    "unreachable": _Story(failure=NotSent, says="connection refused"),
    "read": _Story(("sent", "delivered", "read")),
    "opted_out": _Story(failure=Refused, says="the recipient has said STOP", opted_out=True),
}
# The last digit of a magic number -> its story.
MAGIC = dict(enumerate(STORIES))

# Numbers without a telephone: the North American plan keeps 555-0100 to 555-0199 of every area
# for fiction, and no exchange begins with 0.
_MAGIC_NUMBER = re.compile(r"\+1(?:\d{3}555010|555010000)([0-9])", re.ASCII)
_REF = re.compile(r"sim-([a-z]+)-([0-9a-f]{11})-[0-9a-f]{8}", re.ASCII)


class Simulator(Provider):
    """A provider that sends nowhere and answers by the destination's number.

    Magic numbers are +15550100000 to +15550100009, and in every area the fictional +1 xxx 555 0100
    to 0109; any other number is delivered.

    ====== ===========  =========================================================
    digit  story        what happens
    ====== ===========  =========================================================
    0      delivered    accepted; reported sent, a second later delivered
    1      undelivered  accepted; reported sent, a second later undelivered
    2      slow         accepted after 2 seconds; then as 0
    3      rejected     Refused
    4      throttled    NotSent at every attempt, with retry_after of one second
    5      silent       accepted; no report ever
    6      unknown      OutcomeUnknown
    7      unreachable  NotSent
    8      read         as 0, and another second later read
    9      opted_out    Refused: the recipient has opted out of this sender
    ====== ===========  =========================================================

    Of an email the local part of each address names the story (rejected@example.com), and any other
    is delivered; the reports are those of the first that was accepted.

    The setting ``story`` gives every number the same story: a rehearsal of an outage, which pauses
    the configuration and sends by its fallbacks.

    The story and the time are in the reference it hands out, so any process can report later.
    """

    name = "simulator"
    label = "Simulator"
    types: Sequence[str] = ("sms", "email")
    features = frozenset({"bulk", "stateless"})
    report_after = 1
    config_schema: Mapping[str, Any] | None = {
        "type": "object",
        "properties": {
            "latency_ms": {
                "type": "integer",
                "title": "Milliseconds that every request takes",
                "minimum": 0,
                "maximum": 10_000,
                "default": 0,
            },
            "story": {
                "type": "string",
                "title": "What happens to every message, whatever its number: a rehearsal of "
                "an outage",
                "enum": ["", *STORIES],
                "default": "",
            },
        },
    }

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Play the story of the destination."""
        return self._send(_story(sms.destination, config), config)

    def retry_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        """Play the story again; the reference has it where no destination is given."""
        if sms.destination:
            return self.send_sms(sms, config)
        known = _REF.fullmatch(sms.provider_ref or "")
        if known is None or known[1] not in STORIES:
            raise Refused("this is not a reference of the simulator")
        return self._send(known[1], config)

    def _send(self, story: str, config: Mapping[str, Any]) -> Accepted:
        _wait(_latency(config) + STORIES[story].takes)
        result = _play(story, config)
        if isinstance(result, ProviderError):
            raise result
        return result

    def send_sms_bulk(
        self, batch: Sequence[OutboundSMS], config: Mapping[str, Any]
    ) -> Sequence[Accepted | ProviderError]:
        """Play the story of each message; the request takes as long as the slowest of them."""
        stories = [_story(sms.destination, config) for sms in batch]
        _wait(_latency(config) + max((STORIES[one].takes for one in stories), default=0.0))
        return [_play(one, config) for one in stories]

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        """Play the story of each recipient."""
        stories = {one: _story_of_address(one, config) for one in email.recipients}
        _wait(_latency(config) + max((STORIES[one].takes for one in stories.values()), default=0.0))
        results = {one: _play(story, config) for one, story in stories.items()}
        failed = {
            one: result for one, result in results.items() if isinstance(result, ProviderError)
        }
        taken = [result for result in results.values() if isinstance(result, Accepted)]
        if not taken:
            raise next(iter(failed.values()), Refused("the email has no recipient"))
        return Accepted(taken[0].ref, failed=failed)

    def email_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Report as for SMS."""
        return self.sms_reports(refs, config)

    def sms_reports(self, refs: Sequence[str], config: Mapping[str, Any]) -> Sequence[Report]:
        """Report the latest status of each reference of the simulator, and ignore others."""
        _wait(_latency(config))
        return list(_newest(refs, time.time()))


def _story(destination: str, config: Mapping[str, Any]) -> str:
    if config.get("story"):
        return _rehearsed(config["story"])
    magic = _MAGIC_NUMBER.fullmatch(destination)
    return MAGIC[int(magic[1])] if magic else MAGIC[0]


def _story_of_address(address: str, config: Mapping[str, Any]) -> str:
    if config.get("story"):
        return _rehearsed(config["story"])
    name = address.partition("@")[0].lower()
    return name if name in STORIES else "delivered"


def _rehearsed(story: object) -> str:
    if story not in STORIES:
        raise Refused(f"story of the simulator must be one of {', '.join(STORIES)}")
    return str(story)


def _latency(config: Mapping[str, Any]) -> float:
    given = config.get("latency_ms", 0)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 10_000:
        raise Refused("latency_ms of the simulator must be a number from 0 to 10000")
    return given / 1000


def _wait(seconds: float) -> None:
    # sleep(0) still costs a switch to another thread.
    if seconds:
        time.sleep(seconds)


def _play(story: str, config: Mapping[str, Any]) -> Accepted | ProviderError:
    played = STORIES[story]
    # The failure of a magic number is its own; only a rehearsal fails the whole provider.
    only_this = not config.get("story")
    if played.failure is NotSent:
        return NotSent(
            played.says, retry_after=1 if story == "throttled" else None, only_this=only_this
        )
    if played.failure is Refused:
        return Refused(played.says, only_this=only_this, opted_out=played.opted_out)
    if played.failure is not None:
        return played.failure(played.says, only_this=only_this)
    return Accepted(f"sim-{story}-{int(time.time() * 1000):x}-{secrets.token_hex(4)}")


def _newest(refs: Sequence[str], now: float) -> Iterator[Report]:
    for ref in refs:
        parsed = _REF.fullmatch(ref)
        reports = STORIES[parsed[1]].reports if parsed and parsed[1] in STORIES else ()
        if parsed is None or not reports:
            continue
        began = int(parsed[2], 16) / 1000
        step = min(max(int(now - began), 0), len(reports) - 1)
        yield Report(
            ref,
            reports[step],
            event_id=f"{ref}:{reports[step]}",
            occurred_at=datetime.fromtimestamp(began + step, UTC),
        )
