"""The settings are read once, typed, and refused by name."""

import subprocess
import sys
from typing import Any

import pytest
from cryptography.fernet import Fernet

from flask_communication.configs.settings import Growth, Settings
from flask_communication.errors import SettingError


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
        ("PROVIDERS", {"acme": {"adress": "https://acme.example"}}),  # codespell:ignore adress
        ("PROVIDERS", {"acme": {"url": "ftp://acme.example"}}),
        ("DEFAULT_REGION", "India"),
        ("ONLY_TO", "+919999911111"),
        ("EMBEDDED_WORKER", "yes"),
        ("LIMIT_PER_RECIPIENT", 5),
        ("LIMIT_PER_RECIPIENT", [5, 600]),
        ("LIMIT_PER_RECIPIENT", [(0, 600)]),
        ("LIMIT_PER_RECIPIENT", [(5, 60.5)]),
        ("LIMIT_PER_RECIPIENT", [(5, 600), (6, 600)]),
        ("LIMIT_PER_DAY", 0),
        ("LIMIT_PER_DAY", True),
        ("LIMIT_PER_DAY", {"fax": 3}),
        ("LIMIT_PER_DAY", {"sms": -1}),
        ("LIMIT_PER_DAY", 2**31),
        ("ALLOWED_COUNTRIES", "IN"),
        ("ALLOWED_COUNTRIES", ["India"]),
        ("ALLOWED_COUNTRIES", ["XX"]),
        ("ALLOWED_COUNTRIES", ["91"]),
        ("ALLOWED_COUNTRIES", ["+"]),
        ("PREFIX_GROWTH", 0.5),
        ("PREFIX_GROWTH", "10"),
        ("PREFIX_GROWTH", float("nan")),
        ("PREFIX_GROWTH", (10, 0)),
        ("MIGRATIONS", "both"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(name: str, wrong: Any) -> None:
    with pytest.raises(SettingError, match=f"COMMUNICATION_{name}"):
        Settings.from_config({f"COMMUNICATION_{name}": wrong})


@pytest.mark.parametrize(
    "name",
    [
        *("URL_PREFIX", "QUEUE", "CONCURRENCY", "ENCRYPTION_KEYS", "PROVIDERS", "ONLY_TO"),
        *("EMBEDDED_WORKER", "MIGRATIONS", "ALLOW_PRIVATE_HOSTS"),
    ],
)
@pytest.mark.parametrize("wrong", [None, 7.5, object(), b"bytes", {1: 2}])
def test_what_is_no_value_of_a_setting_is_refused_with_a_sentence(name: str, wrong: Any) -> None:
    with pytest.raises(SettingError, match=f"^COMMUNICATION_{name}.* (must be|is neither) "):
        Settings.from_config({f"COMMUNICATION_{name}": wrong})


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(SettingError) as wrong:
        Settings.from_config(
            {
                "COMMUNICATION_QUEUE": "",
                "COMMUNICATION_PROVIDERS": {"acme": {"url": "ftp://acme.example", "secret": ""}},
            }
        )
    assert str(wrong.value).split("; ") == [
        "COMMUNICATION_QUEUE must be a non-empty string",
        "COMMUNICATION_PROVIDERS['acme']['url'] must be an address that begins with http:// or "
        "https://",
        "COMMUNICATION_PROVIDERS['acme']['secret'] must be a non-empty string",
    ]


def test_none_is_no_limit() -> None:
    names = ("LIMIT_PER_RECIPIENT", "LIMIT_PER_DAY", "ALLOWED_COUNTRIES", "PREFIX_GROWTH")
    assert Settings.from_config({f"COMMUNICATION_{one}": None for one in names}) == Settings()


def test_none_reads_no_mailbox() -> None:
    assert Settings.from_config({"COMMUNICATION_INBOX_EVERY": None}).inbox_every is None


def test_texts_may_not_be_kept_longer_than_messages() -> None:
    days = {"COMMUNICATION_KEEP_BODIES_DAYS": 30, "COMMUNICATION_KEEP_MESSAGES_DAYS": 7}
    with pytest.raises(SettingError, match="KEEP_BODIES_DAYS must not be more than"):
        Settings.from_config(days)


def test_recipients_are_kept_as_messages_have_them() -> None:
    given = ["@Bücher.Example", "ann@X.Example", "+919999911111"]
    settings = Settings.from_config({"COMMUNICATION_ONLY_TO": given})
    assert settings.only_to == ("@xn--bcher-kva.example", "ann@x.example", "+919999911111")


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
            "COMMUNICATION_PROVIDERS": {
                "acme": {"url": "https://acme.example/", "secret": "hunter2"}
            },
        }
    )
    assert key not in repr(settings)
    assert "hunter2" not in repr(settings)
    assert settings.providers["acme"].url == "https://acme.example"


@pytest.mark.parametrize("prefix", ["", "/"])
def test_the_blueprint_may_live_at_the_root(prefix: str) -> None:
    assert Settings.from_config({"COMMUNICATION_URL_PREFIX": prefix}).url_prefix == ""


def test_every_way_to_write_a_limit_means_what_it_says() -> None:
    settings = Settings.from_config(
        {
            "COMMUNICATION_LIMIT_PER_RECIPIENT": [[5, 600], (20, 86400)],
            "COMMUNICATION_LIMIT_PER_DAY": 1000,
            "COMMUNICATION_ALLOWED_COUNTRIES": ["in", "+44"],
            "COMMUNICATION_PREFIX_GROWTH": (10, 500),
        }
    )
    assert settings.limit_per_recipient == ((5, 600), (20, 86400))
    assert settings.limit_per_day == {"sms": 1000, "email": 1000, "telephony": 1000}
    assert settings.allowed_countries == ("IN", "+44")
    assert settings.prefix_growth == Growth(10, 500)
    alone = Settings.from_config(
        {"COMMUNICATION_LIMIT_PER_DAY": {"sms": 7}, "COMMUNICATION_PREFIX_GROWTH": 2}
    )
    assert alone.limit_per_day == {"sms": 7}
    assert alone.prefix_growth == Growth(2, 100)


def test_a_country_needs_the_phone_library_and_the_error_says_so() -> None:
    code = (
        "import sys; sys.modules['phonenumbers'] = None\n"
        "from flask_communication.configs.settings import Settings\n"
        "Settings.from_config({'COMMUNICATION_ALLOWED_COUNTRIES': ['+91']})\n"
        "Settings.from_config({'COMMUNICATION_ALLOWED_COUNTRIES': ['IN']})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "COMMUNICATION_ALLOWED_COUNTRIES needs the phonenumbers library" in ended.stderr
    assert "flask-communication[phone]" in ended.stderr
