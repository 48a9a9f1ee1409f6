"""Tests of what a provider declares: its name, capabilities and manifest, and who may use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from flask.testing import FlaskClient

from ...providers.base import Provider
from ...providers.contract import email, manifest, signatures, sms
from .fixtures import (
    ROOT,
    SHORTEST_SECRET,
    Fixtures,
    check_no_secret,
    post,
    remote_of,
    secrets_of,
    send_body,
)

_METHODS = {
    "sms": "send_sms",
    "email": "send_email",
    manifest.BULK: "send_sms_bulk",
    manifest.INBOX: "fetch_inbox",
}
_PATHS = (
    sms.SEND,
    sms.RETRY,
    sms.REPORT,
    sms.BULK,
    email.SEND,
    email.RETRY,
    email.REPORT,
    email.INBOX,
)


class Promises(Fixtures):
    """A provider's name, channels, features and settings, and which requests it accepts."""

    def test_it_has_a_name_and_possible_numbers(self, provider: Provider) -> None:
        assert provider.name, "give it a name: operators write it as provider_pkg_name"
        assert provider.name.isprintable()
        can = provider.learn()
        assert can.idempotency_window >= 0
        assert can.report_after >= 0
        assert can.bulk_limit >= 1

    def test_what_it_promises_it_can_do(self, provider: Provider) -> None:
        can = provider.learn()
        assert set(self.channels) <= set(can.types), f"its types are {can.types}"
        for promised in {*can.types, *can.features} & set(_METHODS):
            method = _METHODS[promised]
            own = getattr(type(provider), method)
            assert own is not getattr(Provider, method), (
                f"it promises {promised} and has no {method}"
            )

    def test_its_settings_are_declared(self, provider: Provider, config: Mapping[str, Any]) -> None:
        schema = provider.learn().config_schema
        if schema is None:
            return
        declared = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(declared)
        assert set(config) <= set(declared), "a setting that is not declared is not asked for"
        assert all(isinstance(about, Mapping) for about in declared.values())

    def test_its_secrets_are_long_enough_to_be_found(
        self, provider: Provider, config: Mapping[str, Any]
    ) -> None:
        for secret in secrets_of(provider, config):
            assert len(secret) >= SHORTEST_SECRET, (
                f"use secrets of {SHORTEST_SECRET} characters at least"
            )

    def test_what_it_shows_of_itself_has_no_secret(
        self, provider: Provider, client: FlaskClient, config: Mapping[str, Any]
    ) -> None:
        check_no_secret(f"{provider!r} {provider}", "its repr", provider, config)
        check_no_secret(client.get(ROOT).text, "its manifest", provider, config)

    def test_its_manifest_is_in_the_form_of_the_contract(
        self, provider: Provider, client: FlaskClient
    ) -> None:
        answer = client.get(ROOT)
        assert answer.status_code == 200
        loaded = manifest.Manifest().load(answer.get_json())
        assert set(self.channels) <= set(loaded["types"])
        served = {manifest.STATELESS, manifest.BULK, manifest.INBOX}
        assert set(loaded["features"]) & served >= provider.learn().features & served

    @pytest.mark.parametrize("path", _PATHS)
    def test_an_unsigned_request_is_refused(
        self,
        client: FlaskClient,
        provider: Provider,
        vendor: Any,
        config: Mapping[str, Any],
        path: str,
    ) -> None:
        provider.learn()
        before = len(vendor.heard)
        for destination in (self.destinations[one] for one in self.channels):
            _, body = send_body(destination, config)
            for headers in ({}, signatures.signature_headers(b"another", "m1", b"")):
                answer = client.post(ROOT + path, json=body, headers=headers)
                if answer.status_code != 404:
                    assert (answer.status_code, answer.get_json()["success"]) == (401, False)
        assert len(vendor.heard) == before, "an unsigned request reached the vendor"

    def test_what_it_does_not_promise_is_not_served(
        self, provider: Provider, client: FlaskClient, config: Mapping[str, Any]
    ) -> None:
        absent = {sms.BULK: manifest.BULK, email.INBOX: manifest.INBOX}
        for path, feature in absent.items():
            if feature not in provider.learn().features:
                assert post(client, path, {"config": dict(config)}).status_code == 404
        if "email" not in provider.learn().types:
            assert post(client, email.SEND, {}).status_code == 404

    def test_a_client_learns_what_it_can_do(self, provider: Provider, served: Any) -> None:
        told = remote_of(provider, served).learn()
        assert set(self.channels) <= set(told.types)
        assert told.idempotency_window == provider.learn().idempotency_window
