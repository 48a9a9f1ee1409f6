"""The kit is exported from ``flask_communication.providers``."""

from __future__ import annotations

from flask_communication import providers
from flask_communication.providers import base, http


def test_the_kit_has_all_that_an_author_of_a_provider_uses() -> None:
    assert set(base.__all__) <= set(providers.__all__)
    assert {"Http", "Reply", "classify"} <= set(providers.__all__)
    assert providers.Provider is base.Provider
    assert providers.Http is http.Http


def test_the_names_of_the_kit_are_in_order() -> None:
    assert sorted(providers.__all__) == list(providers.__all__)
    assert all(hasattr(providers, name) for name in providers.__all__)
