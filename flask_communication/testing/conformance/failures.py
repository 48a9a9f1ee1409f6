"""Tests of failures: missing and strange settings, and a hostile vendor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from flask.testing import FlaskClient

from ...errors import OutcomeUnknown, ProviderError
from ...providers.base import Provider
from .fixtures import (
    Fixtures,
    check,
    check_no_secret,
    email_to,
    outcome,
    post,
    secrets_of,
    send,
    send_body,
    sms_to,
    words_of,
)

# What a setting may hold: lines of text, numbers, true, false and null.
_STRANGE: tuple[object, ...] = (None, "", True, 7, -1.5, "\u2603", "x\r\ny: z")


class Failures(Fixtures):
    """Every failure ends in one of the four outcomes, and repeats no secret."""

    def test_without_what_is_required_nothing_leaves(
        self,
        reached: Provider,
        provider: Provider,
        config: Mapping[str, Any],
        vendor: Any,
        channel: str,
    ) -> None:
        required = (provider.learn().config_schema or {}).get("required", ())
        lacking = [{name: config[name] for name in config if name != one} for one in required]
        before = len(vendor.heard)
        for one in (*lacking, *([{}] if required else ())):
            ended = send(reached, self.destinations[channel], one)
            assert isinstance(ended, ProviderError), (
                "it accepted without a setting that it requires"
            )
            assert not isinstance(ended, OutcomeUnknown), (
                f"nothing has left, so raise Refused: {words_of(ended)}"
            )
        assert len(vendor.heard) == before, "it made a request without a setting that it requires"

    def test_strange_settings_break_nothing(
        self, provider: Provider, config: Mapping[str, Any], channel: str
    ) -> None:
        declared = (provider.learn().config_schema or {}).get("properties", {})
        for name in sorted({*config, *declared}):
            # No request should go to a strange address.
            if declared.get(name, {}).get("destination"):
                continue
            for value in _STRANGE:
                send(provider, self.destinations[channel], {**config, name: value})

    def test_a_hostile_vendor_has_its_outcome(
        self,
        reached: Provider,
        provider: Provider,
        config: Mapping[str, Any],
        vendor: Any,
        channel: str,
        hostile_case: tuple[object, object],
    ) -> None:
        answer, expected = hostile_case
        vendor.plays(answer)
        before = len(vendor.heard)
        ended = send(reached, self.destinations[channel], config)
        requests = [(one.url, one.content) for one in vendor.heard[before:] if one.method != "GET"]
        assert provider.learn().idempotency_window or len(set(requests)) == len(requests), (
            "it repeated the request by itself, and may have reached the recipient twice: raise "
            "the outcome"
        )
        check_no_secret(words_of(ended), "the outcome", provider, config)
        check(ended, expected)

    def test_a_hostile_vendor_does_not_break_the_other_requests(
        self,
        provider: Provider,
        config: Mapping[str, Any],
        vendor: Any,
        channel: str,
        hostile_case: tuple[Any, object],
    ) -> None:
        vendor.plays(hostile_case[0])
        for method, subject in _others(provider, self.destinations[channel], channel):
            ended = outcome(method, subject, config)
            check_no_secret(words_of(ended), "the outcome", provider, config)

    def test_an_answer_has_its_outcome(
        self,
        reached: Provider,
        config: Mapping[str, Any],
        vendor: Any,
        channel: str,
        answer_case: Any,
    ) -> None:
        answer, expected = answer_case
        vendor.plays(answer)
        check(send(reached, self.destinations[channel], config), expected)

    @pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
    def test_a_vendor_that_repeats_secrets_is_not_quoted(
        self,
        provider: Provider,
        client: FlaskClient,
        config: Mapping[str, Any],
        vendor: Any,
        channel: str,
        status: int,
    ) -> None:
        if self.accepts is None or not secrets_of(provider, config):
            pytest.skip("the vendor is not played, or nothing is secret")
        said = "your key " + " ".join(secrets_of(provider, config))
        names = ("msg", "message", "error", "detail", "description", "reason")
        for body in (said, dict.fromkeys(names, said), {"error": {"message": said}}):
            vendor.plays((status, body))
            ended = send(provider, self.destinations[channel], config)
            check_no_secret(words_of(ended), "the outcome", provider, config)
            answer = post(client, *send_body(self.destinations[channel], config))
            check_no_secret(answer.text, "the answer", provider, config)


def _others(provider: Provider, destination: str, channel: str) -> Iterator[tuple[object, object]]:
    if channel == "email":
        yield provider.send_email, email_to(destination, ref="conformance-1")
        yield provider.email_reports, ["conformance-1"]
        return
    yield provider.retry_sms, sms_to(destination, ref="conformance-1")
    yield provider.sms_reports, ["conformance-1"]
    if "bulk" in provider.learn().features:
        yield provider.send_sms_bulk, [sms_to(destination), sms_to(destination, "conformance-2")]
