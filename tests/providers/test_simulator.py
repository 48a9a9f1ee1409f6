"""The simulator tells the story its magic numbers promise, and remembers nothing."""

from __future__ import annotations

import inspect
import time
from typing import Any

import pytest

from flask_communication.errors import NotSent, OutcomeUnknown, ProviderError, Refused
from flask_communication.providers.base import Accepted, OutboundEmail, OutboundSMS, Report
from flask_communication.providers.simulator import MAGIC, STORIES, Simulator


def number(story: str) -> str:
    digit = next(digit for digit, name in MAGIC.items() if name == story)
    return f"+1555010000{digit}"


def sms(destination: str, ref: str | None = None) -> OutboundSMS:
    return OutboundSMS("k1", destination, "Hello World", provider_ref=ref)


def send(destination: str) -> str:
    return Simulator().send_sms(sms(destination), {}).ref


def report(ref: str) -> Report | None:
    # Another instance, as in another process: the reference is all it has.
    return next(iter(Simulator().sms_reports([ref], {})), None)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)


@pytest.mark.parametrize("destination", ["+919999911111", "+15550100000", "+12125550100", "x"])
def test_any_number_is_delivered_unless_it_is_magic(
    destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = send(destination)
    first = report(ref)
    assert first is not None
    assert first.status == "sent"
    later(monkeypatch, 1.1)
    second = report(ref)
    assert second is not None
    assert second.status == "delivered"
    assert second.event_id != first.event_id


@pytest.mark.parametrize(
    ("story", "words"),
    [
        ("delivered", ["sent", "delivered", "delivered"]),
        ("undelivered", ["sent", "undelivered", "undelivered"]),
        ("read", ["sent", "delivered", "read"]),
        ("silent", [None, None, None]),
    ],
)
def test_an_accepted_message_is_reported_in_chapters(
    story: str, words: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = send(number(story))
    told = []
    for seconds in (0.0, 1.1, 1.1):
        later(monkeypatch, seconds)
        found = report(ref)
        told.append(found and found.status)
    assert told == words


@pytest.mark.parametrize(
    ("story", "outcome"),
    [
        ("rejected", Refused),
        ("throttled", NotSent),
        ("unknown", OutcomeUnknown),
        ("unreachable", NotSent),
    ],
)
def test_a_failure_is_raised_at_once(story: str, outcome: type[ProviderError]) -> None:
    with pytest.raises(outcome) as caught:
        send(number(story))
    if story == "throttled":
        assert getattr(caught.value, "retry_after", None) == 1


def test_only_the_last_number_has_opted_out() -> None:
    said = {
        story: Simulator().send_sms_bulk([sms(number(story))], {})[0]
        for story in ("opted_out", "rejected")
    }
    assert {story: getattr(one, "opted_out", None) for story, one in said.items()} == {
        "opted_out": True,
        "rejected": False,
    }


def test_the_slow_number_takes_two_seconds() -> None:
    began = time.monotonic()
    send(number("slow"))
    assert time.monotonic() - began >= 2


def test_a_batch_tells_every_story_in_order() -> None:
    stories = ["delivered", "rejected", "unknown", "throttled", "silent"]
    results = Simulator().send_sms_bulk([sms(number(one)) for one in stories], {})
    kinds = [type(one) for one in results]
    assert kinds == [Accepted, Refused, OutcomeUnknown, NotSent, Accepted]


def test_a_retry_needs_only_the_reference() -> None:
    ref = send(number("undelivered"))
    assert Simulator().retry_sms(sms("", ref), {}).ref.startswith("sim-undelivered-")
    with pytest.raises(Refused, match="not a reference of the simulator"):
        Simulator().retry_sms(sms("", "seed-1"), {})


def test_two_messages_never_get_the_same_reference() -> None:
    assert len({send("+919999911111") for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "ref",
    ["", "seed-1", "sim-delivered-zz-00000000", "sim-nonsense-019aaaaaaaa-00000000",
     "sim-delivered-fffffffffff-00000000\n", "sim-rejected-019aaaaaaaa-00000000"],
)  # fmt: skip
def test_a_reference_that_is_not_ours_is_left_out(ref: str) -> None:
    assert report(ref) is None


def test_a_reference_from_the_far_future_is_not_an_error() -> None:
    assert report("sim-delivered-fffffffffff-00000000") is not None


@pytest.mark.parametrize("latency", ["1", None, -1, 10_001, True, [], float("nan")])
def test_a_latency_that_is_none_is_refused(latency: Any) -> None:
    with pytest.raises(Refused, match="latency_ms"):
        Simulator().send_sms(sms("+919999911111"), {"latency_ms": latency})


def test_a_latency_is_waited() -> None:
    began = time.monotonic()
    Simulator().send_sms(sms("+919999911111"), {"latency_ms": 50})
    assert time.monotonic() - began >= 0.05


def test_the_table_in_the_docstring_is_the_table_in_the_code() -> None:
    text = inspect.getdoc(Simulator) or ""
    rows = [line.split() for line in text.splitlines()]
    written = {int(row[0]): row[1] for row in rows if row and row[0].isdecimal()}
    assert written == MAGIC
    assert set(MAGIC.values()) == set(STORIES)


def mail(*recipients: str) -> OutboundEmail:
    return OutboundEmail("k", "<k@x.example>", "a@x.example", recipients, "Hello", "World")


def test_an_address_names_its_story() -> None:
    simulator = Simulator()
    taken = simulator.send_email(mail("ann@example.com", "rejected@example.com"), {})
    assert set(taken.failed) == {"rejected@example.com"}
    assert isinstance(taken.failed["rejected@example.com"], Refused)
    assert simulator.email_reports([taken.ref], {})[0].status in ("sent", "delivered")
    with pytest.raises(OutcomeUnknown):
        simulator.send_email(mail("unknown@example.com"), {})


def test_a_rehearsal_gives_everybody_the_same_story() -> None:
    with pytest.raises(NotSent) as caught:
        Simulator().send_sms(sms("+919999911111"), {"story": "unreachable"})
    assert not caught.value.only_this
    with pytest.raises(Refused, match="story"):
        Simulator().send_sms(sms("+919999911111"), {"story": "nonsense"})
