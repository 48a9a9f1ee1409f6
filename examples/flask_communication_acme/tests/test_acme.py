"""Acme's answers, and what they mean."""

from typing import Any

import httpx
import pytest
from flask_communication_acme import Acme

from flask_communication.providers.base import (
    Accepted,
    NotSent,
    OutboundSMS,
    OutcomeUnknown,
    ProviderError,
    Refused,
)

CONFIG = {"api_key": "CANARY"}
SMS = OutboundSMS(key="our-uuid", destination="+919999911111", msg="Hello")


def acme(status: int, body: Any, **headers: str) -> tuple[Acme, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, json=body, headers=headers)

    return Acme(httpx.MockTransport(answer)), seen


def test_an_accepted_message_has_acmes_id() -> None:
    provider, seen = acme(200, {"id": 42})
    assert provider.send_sms(SMS, CONFIG) == Accepted("42")
    assert seen[0].headers["Authorization"] == "Bearer CANARY"
    assert b"our-uuid" in seen[0].content


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "bad number"}, Refused),
        (401, {"error": "bad key"}, Refused),
        (429, {"error": "slow down"}, NotSent),
        (500, {}, OutcomeUnknown),
        (200, {}, OutcomeUnknown),
        (200, ["?"], OutcomeUnknown),
    ],
)
def test_other_answers_have_their_outcome(status: int, body: Any, kind: type[ProviderError]) -> None:
    provider, _ = acme(status, body)
    with pytest.raises(kind) as failure:
        provider.send_sms(SMS, CONFIG)
    assert "CANARY" not in str(failure.value)


def test_reports_are_in_our_words() -> None:
    provider, _ = acme(200, {"reports": [{"id": 1, "state": "DELIVRD"}, {"id": 2, "state": "NEW"}]})
    assert [(one.ref, one.status) for one in provider.sms_reports(["1", "2"], CONFIG)] == [("1", "delivered")]


@pytest.mark.parametrize(
    "said",
    [{}, {"reports": None}, {"reports": ["?"]}, {"reports": [{"state": "DELIVRD"}, {"id": 1, "state": []}]}],
)
def test_reports_of_another_shape_say_nothing(said: Any) -> None:
    provider, _ = acme(200, said)
    assert provider.sms_reports(["1"], CONFIG) == []


def test_without_a_key_nothing_leaves() -> None:
    provider, seen = acme(200, {"id": 42})
    with pytest.raises(Refused, match="api_key"):
        provider.send_sms(SMS, {})
    assert seen == []
