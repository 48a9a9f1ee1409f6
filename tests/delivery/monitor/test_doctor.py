"""The doctor finds what keeps messages from being sent, and says the next step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from flask import Flask, jsonify
from sqlalchemy import text

from flask_communication import SMS
from flask_communication.configs import store as configs
from flask_communication.configs import tokens
from flask_communication.configs.state import state_of
from flask_communication.delivery.monitor import doctor
from flask_communication.delivery.worker import heartbeat
from flask_communication.providers.base import OutcomeUnknown, Refused
from tests.support.apps import TO, MakeApp, install, make_due, work
from tests.support.mail_servers import PASSWORD, USER, Post, sink
from tests.support.providers import Scripted
from tests.support.seed_provider import SeedProvider, seed_app, served


def run(app: Flask, *words: str, expect: int = 0) -> str:
    result = app.test_cli_runner().invoke(args=["communication", *words])
    assert result.exit_code == expect, result.output
    assert "Traceback" not in result.output
    return result.output


def found(app: Flask) -> dict[str, tuple[str, str]]:
    """Return what the doctor finds: about -> (level, says)."""
    with app.app_context():
        return {one.about: (one.level, one.says) for one in doctor.examine(state_of(app))}


def store(app: Flask, package: str, **fields: Any) -> int:
    given = {"type": "sms", "provider": "", "provider_pkg_name": package, "config": {}}
    return configs.create(state_of(app), {**given, **fields})


def test_all_is_well(app: Flask) -> None:
    store(app, "simulator")
    heartbeat.Heart(state_of(app)).beat()
    told = run(app, "doctor")
    assert "fail" not in told
    assert "warn" not in told
    for about in (
        "database",
        "tables",
        "redis",
        "access",
        "workers",
        "due messages",
        "default sms",
    ):
        assert f"ok    {about}: " in told
    assert "ok    sms configuration 1: well" in told


def test_tables_that_are_missing_are_told_first(make_app: MakeApp, database_url: str) -> None:
    told = run(make_app(database_url), "doctor", expect=1)
    assert "fail  tables: not upgraded; run: flask communication upgrade" in told


def test_a_database_that_is_away_is_one_line(make_app: MakeApp) -> None:
    told = run(make_app("postgresql+psycopg://nobody@127.0.0.1:1/none"), "doctor", expect=1)
    assert "fail  tables: OperationalError" in told


def test_a_redis_that_is_away_is_told(make_app: MakeApp, upgraded_url: str) -> None:
    app = make_app(upgraded_url, COMMUNICATION_REDIS_URL="redis://127.0.0.1:1/0")
    assert found(app)["redis"][0] == "warn"
    assert "COMMUNICATION_REDIS_URL" in found(app)["redis"][1]


def test_a_redis_that_is_there_answers(
    make_app: MakeApp, upgraded_url: str, redis_url: str
) -> None:
    assert found(make_app(upgraded_url, COMMUNICATION_REDIS_URL=redis_url))["redis"] == (
        "ok",
        "answers",
    )


def test_nobody_attends(app: Flask) -> None:
    install(app, Scripted())
    assert found(app)["workers"][0] == "warn"
    with app.app_context():
        SMS.send_msg(TO, "Hello")
    make_due(app)
    level, says = found(app)["workers"]
    assert (level, "flask communication worker" in says) == ("fail", True)
    assert found(app)["due messages"][0] == "warn"


def test_what_waits_for_a_person_is_counted(make_app: MakeApp, upgraded_url: str) -> None:
    app = make_app(upgraded_url, COMMUNICATION_ALLOWED_COUNTRIES=["+91"])

    def lose(_sms: object) -> Any:
        raise OutcomeUnknown("the connection broke")

    install(app, Scripted(lose))
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        SMS.send_msg("+15550101234", "Hello")
        work(app)
    assert "resolve UUID" in found(app)["unknown messages"][1]
    assert found(app)["held messages"][1].startswith(
        "1; see: flask communication messages --status held"
    )


def test_nobody_is_let_in_without_authorize_or_a_token(
    make_app: MakeApp, upgraded_url: str
) -> None:
    app = make_app(upgraded_url, authorize=None)
    assert found(app)["access"][0] == "warn"
    tokens.create(state_of(app), "me", ["*"])
    assert found(app)["access"] == (
        "ok",
        "by bearer tokens only; people need Communication(authorize=…)",
    )


def test_secrets_that_no_key_opens_fail(make_app: MakeApp, upgraded_url: str) -> None:
    store(make_app(upgraded_url), "simulator", config={"secret": "CANARY"})
    app = make_app(upgraded_url, COMMUNICATION_ENCRYPTION_KEYS=[Fernet.generate_key().decode()])
    told = run(app, "doctor", expect=1)
    assert "fail  sms configuration 1: no key in COMMUNICATION_ENCRYPTION_KEYS opens" in told
    assert "CANARY" not in told


def test_providers_fallbacks_and_defaults_that_do_not_exist_are_found(app: Flask) -> None:
    assert found(app)["configurations"][0] == "warn"
    store(app, "nobody", is_default=False, fallback=["ghost"])
    told = run(app, "doctor", expect=1)
    assert "warn  default sms: none" in told
    assert "fail  sms configuration 1: no provider is called 'nobody'" in told
    assert "warn  sms configuration 1: its fallback 'ghost' is the key of no configuration" in told
    configs.change(state_of(app), 1, {"is_default": True, "enabled": False})
    assert found(app)["default sms"] == (
        "fail",
        "configuration 1 is disabled; flask communication config update ID --enabled",
    )


def test_a_stopped_circuit_fails_and_a_pause_warns(app: Flask) -> None:
    def refuse(_sms: object) -> Any:
        raise Refused("wrong password", http_status=401)

    install(app, Scripted(refuse))
    with app.app_context():
        SMS.send_msg(TO, "Hello")
        work(app)
    level, says = found(app)["sms configuration 1"]
    assert (level, "wrong password" in says) == ("fail", True)
    state = state_of(app)
    with state.database.write() as connection:
        until = state.database.dialect.later("30.0")
        connection.execute(
            text(f"UPDATE communication_circuit SET state = 'open', until = {until}")
        )
    assert found(app)["sms configuration 1"][0] == "warn"


def test_webhooks_need_a_public_address(make_app: MakeApp, upgraded_url: str) -> None:
    class Hooked(Scripted):
        features = frozenset({"webhooks"})

    app = make_app(upgraded_url)
    install(app, Hooked())
    assert "COMMUNICATION_PUBLIC_URL" in found(app)["sms configuration 1"][1]


def test_a_file_of_another_machine_is_seen(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    place = str(tmp_path).replace(" ", "\\040")
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nnas:/data {place} nfs4 rw 0 0\nnone\n")
    assert doctor._file_system(tmp_path / "a.sqlite", mounts) == "nfs4"
    assert doctor._file_system(Path("/a.sqlite"), mounts) == "ext4"
    assert doctor._file_system(tmp_path, tmp_path / "none") is None


def test_a_configuration_is_tried_without_sending(app: Flask) -> None:
    provider = Scripted()
    install(app, provider)
    assert "ok    sms scripted (1): scripted has nothing to try without sending" in run(
        app, "config", "test", "1"
    )
    assert not provider.calls
    for wrong in ("2", "otp"):
        assert run(app, "config", "test", wrong, expect=1).startswith("Error: ")


def test_a_check_that_breaks_is_one_line_without_its_words(app: Flask) -> None:
    class Broken(Scripted):
        def check(self, config: Mapping[str, Any]) -> str:
            raise KeyError("CANARY")

    install(app, Broken())
    told = run(app, "config", "test", "1", expect=1)
    assert "fail  sms scripted (1): the check of scripted itself failed (KeyError)" in told
    assert "CANARY" not in told


@pytest.mark.parametrize(("password", "status"), [(PASSWORD, 0), ("wrong", 1)])
def test_a_mail_server_is_tried_with_a_login(app: Flask, password: str, status: int) -> None:
    post = Post()
    with sink(post, login=True) as port:
        known = {
            "host": "127.0.0.1",
            "port": port,
            "security": "none",
            "username": USER,
            "password": password,
        }
        store(app, "smtp", type="email", config=known)
        told = run(app, "config", "test", "1", expect=status)
    assert ("and accepts the login" if not status else "refused the login") in told
    assert password not in told
    assert not post.mails


def test_a_mail_server_that_is_away_is_told(app: Flask) -> None:
    store(app, "smtp", type="email", config={"host": "127.0.0.1", "port": 1, "security": "none"})
    assert "check host, port and security" in run(app, "config", "test", "1", expect=1)


def test_settings_that_contradict_the_schema_are_told(app: Flask) -> None:
    store(app, "smtp", type="email", config={"security": "none of them", "bogus": "x"})
    told = run(app, "config", "test", "1", expect=1)
    assert "fail  email smtp (1): the setting host is missing" in told
    assert "fail  email smtp (1): the setting security must be one of starttls, tls, none" in told
    assert "warn  email smtp (1): the setting bogus is none of host" in told


def manifest(answer: Any, status: int = 200) -> Flask:
    app = Flask("manifest")
    app.add_url_rule("/sms/", view_func=lambda: (jsonify(answer), status), endpoint="root")
    return app


def test_a_remote_provider_is_asked_for_its_manifest(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    known: Mapping[str, Any] = {
        "name": "acme",
        "label": "Acme SMS",
        "types": ["sms", "email"],
        "features": ["bulk"],
        "idempotency_window": 60,
        "config_schema": {"properties": {"api_key": {}}},
    }
    with served(manifest(known)) as address:
        app = make_app(upgraded_sqlite_url, COMMUNICATION_PROVIDERS={"acme": f"{address}/sms"})
        store(app, "acme", config={"api_key": "x"})
        assert "ok    sms acme (1): " in run(app, "config", "test", "1")
        told = run(app, "provider", "check", f"{address}/sms")
    for words in (
        "it is acme",
        "label Acme SMS",
        "types sms, email",
        "features bulk",
        "for 60 s",
        "api_key",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("answer", "code", "says", "expect"),
    [
        ({"name": "acme"}, 200, "types: ", 1),
        (
            {"name": "acme", "types": ["sms"], "idempotency_window": -1},
            200,
            "idempotency_window: ",
            1,
        ),
        ({}, 500, "it answers GET with 500", 1),
        ({}, 401, "it answers GET with 401", 1),
        ({}, 404, "it answers 404, without a manifest", 0),
        ([], 200, "with no JSON object, without a manifest", 0),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told(
    make_app: MakeApp, upgraded_sqlite_url: str, answer: Any, code: int, says: str, expect: int
) -> None:
    app = make_app(upgraded_sqlite_url)
    with served(manifest(answer, code)) as address:
        assert says in run(app, "provider", "check", f"{address}/sms/", expect=expect)


def test_a_provider_of_the_seed_is_one_without_a_manifest(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    memory = SeedProvider()
    with served(seed_app(memory)) as address:
        app = make_app(upgraded_sqlite_url)
        assert "without a manifest" in run(app, "provider", "check", f"{address}/seedsms")
    assert not memory.rang


@pytest.mark.parametrize(
    "url",
    [
        "acme",
        "ftp://acme.example",
        "https://",
        "http://127.0.0.1:1/sms",
        "http://[::1",
        "http://a:99999/",
        "http://a b/",
        "http://\u0000/",
    ],
)
def test_an_address_that_leads_nowhere_is_one_line(
    make_app: MakeApp, upgraded_sqlite_url: str, url: str
) -> None:
    told = run(make_app(upgraded_sqlite_url), "provider", "check", url, expect=1)
    assert told.startswith("Error: ")
    assert len(told.splitlines()) == 1
