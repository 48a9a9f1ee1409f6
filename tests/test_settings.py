"""The settings are read once, typed, and refused by name."""

from typing import Any

import pytest
from cryptography.fernet import Fernet

from flask_communication.errors import SettingError
from flask_communication.settings import Settings


def test_an_empty_config_gives_the_documented_defaults() -> None:
    settings = Settings.from_config({"DEBUG": True})
    assert settings == Settings()
    assert settings.url_prefix == "/communication"
    assert settings.concurrency == 20
    assert settings.embedded_worker


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("URL_PREFIX", "communication"),
        ("URL_PREFIX", "/communication/"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", 6379),
        ("QUEUE", ""),
        ("CONCURRENCY", 0),
        ("CONCURRENCY", True),
        ("CONCURRENCY", "20"),
        ("ENCRYPTION_KEYS", "a string"),
        ("ENCRYPTION_KEYS", ["not a fernet key"]),
        ("PUBLIC_URL", "example.com"),
        ("PROVIDERS", ["acme"]),
        ("PROVIDERS", {"acme": {"adress": "https://acme.example"}}),
        ("PROVIDERS", {"acme": {"url": "ftp://acme.example"}}),
        ("DEFAULT_REGION", "India"),
        ("ONLY_TO", "+919999911111"),
        ("EMBEDDED_WORKER", "yes"),
        ("MIGRATIONS", "both"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(name: str, wrong: Any) -> None:
    with pytest.raises(SettingError, match=f"COMMUNICATION_{name}"):
        Settings.from_config({f"COMMUNICATION_{name}": wrong})


def test_a_misspelt_setting_is_refused_and_the_right_one_named() -> None:
    with pytest.raises(SettingError, match="did you mean COMMUNICATION_REDIS_URL"):
        Settings.from_config({"COMMUNICATION_REDIS_URI": "redis://localhost"})


def test_a_wrong_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(SettingError) as wrong:
        Settings.from_config({"COMMUNICATION_ENCRYPTION_KEYS": ["hunter2hunter2"]})
    assert "hunter2" not in str(wrong.value)


def test_no_secret_is_in_the_repr() -> None:
    key = Fernet.generate_key().decode()
    settings = Settings.from_config(
        {
            "COMMUNICATION_ENCRYPTION_KEYS": [key],
            "COMMUNICATION_REDIS_URL": "redis://:hunter2@localhost",
            "COMMUNICATION_DATABASE_URL": "postgresql://me:hunter2@localhost/x",
            "COMMUNICATION_PROVIDERS": {"acme": {"url": "https://acme.example/", "secret": "hunter2"}},
        }
    )
    assert key not in repr(settings)
    assert "hunter2" not in repr(settings)
    assert settings.providers["acme"].url == "https://acme.example"


@pytest.mark.parametrize("prefix", ["", "/"])
def test_the_blueprint_may_live_at_the_root(prefix: str) -> None:
    assert Settings.from_config({"COMMUNICATION_URL_PREFIX": prefix}).url_prefix == ""
