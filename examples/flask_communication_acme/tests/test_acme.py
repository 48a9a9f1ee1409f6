"""Acme's answers and their outcomes, and the tests that every provider should pass."""

from typing import Any

import pytest
from flask_communication_acme import Acme

from flask_communication.providers import Accepted, Denied, OutboundSMS, Refused
from flask_communication.testing import ProviderConformance


class TestAcme(ProviderConformance):
    accepts = (200, {"id": 42})
    answers = {
        "an id": ((200, {"id": 42}), Accepted("42")),
        "a bad number": ((400, {"error": "bad number"}), Refused),
        "a bad key": ((401, {"error": "bad key"}), Denied),
    }
    reports = {
        "its words": (
            (200, {"reports": [{"id": 1, "state": "DELIVRD"}, {"id": 2, "state": "NEW"}]}),
            [("1", "delivered")],
        ),
        "no list": ((200, {"reports": None}), []),
        "no objects": ((200, {"reports": ["?"]}), []),
        "no ids": ((200, {"reports": [{"state": "DELIVRD"}, {"id": 1, "state": []}]}), []),
    }

    @pytest.fixture
    def provider(self, vendor: Any) -> Acme:
        return Acme(vendor)

    @pytest.fixture
    def config(self) -> dict[str, str]:
        return {"api_key": "CANARY_of_acme"}

    def test_a_request_is_as_acme_documents_it(
        self, provider: Acme, config: dict[str, str], vendor: Any
    ) -> None:
        provider.send_sms(OutboundSMS("our-uuid", "+919999911111", "Hello"), config)
        (heard,) = vendor.heard
        assert str(heard.url) == "https://api.acme.example/v1/messages"
        assert heard.headers["Authorization"] == "Bearer CANARY_of_acme"
        assert heard.content == b'{"to":"+919999911111","text":"Hello","reference":"our-uuid"}'
