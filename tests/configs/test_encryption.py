"""Secrets at rest."""

import pytest
from cryptography.fernet import Fernet

from flask_communication.configs.encryption import Vault
from flask_communication.errors import InvalidConfig, SettingError

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_what_is_sealed_is_not_readable_and_opens_again() -> None:
    sealed = Vault([NEW]).seal({"auth": "CANARY"}, "config:1")
    assert "CANARY" not in sealed
    assert Vault([NEW]).open(sealed, "config:1") == {"auth": "CANARY"}


def test_an_old_key_still_opens_after_a_rotation() -> None:
    sealed = Vault([OLD]).seal({"auth": "x"}, "config:1")
    assert Vault([NEW, OLD]).open(sealed, "config:1") == {"auth": "x"}


def test_without_a_key_nothing_is_sealed() -> None:
    with pytest.raises(InvalidConfig, match="COMMUNICATION_ENCRYPTION_KEYS"):
        Vault([]).seal({"auth": "x"}, "config:1")


def test_a_lost_key_is_named_as_the_cause() -> None:
    sealed = Vault([OLD]).seal({"auth": "x"}, "config:1")
    for vault in (Vault([NEW]), Vault([])):
        with pytest.raises(SettingError, match="no key in COMMUNICATION_ENCRYPTION_KEYS"):
            vault.open(sealed, "config:1")


def test_a_sealed_text_is_of_no_use_in_another_row() -> None:
    sealed = Vault([NEW]).seal({"auth": "x"}, "config:1")
    with pytest.raises(SettingError, match="moved there from config:1"):
        Vault([NEW]).open(sealed, "config:2")


def test_plain_json_needs_no_key() -> None:
    assert Vault([]).open('{"latency": 1}', "config:1") == {"latency": 1}
