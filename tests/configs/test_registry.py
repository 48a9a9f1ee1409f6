"""From the name in a configuration to a provider, in the promised order and never further."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, g, jsonify, request
from flask_sqlalchemy import SQLAlchemy

from flask_communication.configs.registry import Registry
from flask_communication.configs.settings import RemoteAddress, Settings
from flask_communication.errors import OutcomeUnknown, ProviderNotFound, Refused, SettingError
from flask_communication.providers.base import Accepted, OutboundSMS, Provider
from flask_communication.providers.blueprint import provider_blueprint
from flask_communication.providers.net.in_process import INTERNAL
from flask_communication.providers.remote import RemoteProvider
from flask_communication.providers.simulator import Simulator
from tests.support.seed_provider import SeedProvider, seed_app, seed_blueprint, served

NUMBER = "+919999911111"


class Carrier(Provider):
    name = "carrier"


@pytest.fixture
def app() -> Flask:
    return Flask("host", root_path="/")


def registry(app: Flask, **settings: Any) -> Registry:
    return Registry(app, Settings(**settings))


def sms(key: str = "k1", ref: str | None = None) -> OutboundSMS:
    return OutboundSMS(key, NUMBER, "Hello World", provider_ref=ref)


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path, line: str, source: str) -> None:
    """Install a distribution with one entry point, as far as Python can tell."""
    metadata = folder / "carrier_sms-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: carrier-sms\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[flask_communication.providers]\n{line}\n")
    (folder / "carrier_sms.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "carrier_sms", raising=False)


def test_a_registered_provider_is_found(app: Flask) -> None:
    known, carrier = registry(app), Carrier()
    known.register(carrier)
    assert known.find("carrier") is carrier


def test_the_last_registration_of_a_name_counts(app: Flask) -> None:
    known, second = registry(app), Carrier()
    known.register(Carrier())
    known.register(second)
    assert known.find("carrier") is second


@pytest.mark.parametrize("thing", [Carrier, "carrier", None, Provider()])
def test_what_is_no_named_provider_cannot_be_registered(app: Flask, thing: Any) -> None:
    with pytest.raises(SettingError):
        registry(app).register(thing)


def test_the_bundled_simulator_is_found_and_kept(app: Flask) -> None:
    known = registry(app)
    assert isinstance(known.find("simulator"), Simulator)
    assert known.find("simulator") is known.find("simulator")


def test_an_installed_package_is_found(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from flask_communication.providers.base import Provider\n"
        "class Carrier(Provider):\n    name = 'carrier'\n"
    )
    installed(monkeypatch, tmp_path, "carrier = carrier_sms:Carrier", source)
    known = registry(app, providers={"carrier": RemoteAddress("https://carrier.example")})
    assert type(known.find("carrier")).__module__ == "carrier_sms"
    assert "carrier" in known.names()


@pytest.mark.parametrize("source", ["import no_such_module_at_all", "Carrier = 7", "pass"])
def test_an_installed_package_that_is_broken_says_so(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    installed(monkeypatch, tmp_path, "carrier = carrier_sms:Carrier", source)
    with pytest.raises(ProviderNotFound, match="carrier"):
        registry(app).find("carrier")


@pytest.mark.usefixtures("any_address")
def test_an_address_of_the_operator_is_found(app: Flask) -> None:
    memory = SeedProvider()
    with served(seed_app(memory)) as url:
        known = registry(app, providers={"acme": RemoteAddress(f"{url}/seedsms")})
        assert known.find("acme").send_sms(sms(), {}).ref == "seed-1"
        assert known.find("acme") is known.find("acme")


def test_a_registered_provider_goes_before_an_address(app: Flask) -> None:
    known = registry(app, providers={"carrier": RemoteAddress("https://carrier.example")})
    assert isinstance(known.find("carrier"), RemoteProvider)
    known.register(Carrier())
    assert isinstance(known.find("carrier"), Carrier)


@pytest.mark.parametrize(
    "name",
    ["seedsms", "shop.packages.seedsms", "shop.packages", "tests.support.seed_provider"],
)
def test_a_seed_only_blueprint_of_this_application_works_unchanged(app: Flask, name: str) -> None:
    memory = SeedProvider()
    app.register_blueprint(seed_blueprint(memory), url_prefix="/any/where")
    provider = registry(app).find(name)
    first = provider.send_sms(sms(), {"a": "b"})
    assert provider.retry_sms(sms("k2", first.ref), {"a": "b"}).ref == first.ref
    reports = provider.sms_reports([first.ref], {"a": "b"})
    assert [(one.ref, one.status) for one in reports] == [(first.ref, "delivered")]
    assert [one.key for one in memory.rang] == ["k1", "k2"]
    assert memory.refused == []


def test_a_blueprint_mounted_at_the_root_is_found(app: Flask) -> None:
    memory = SeedProvider()
    app.register_blueprint(seed_blueprint(memory))
    assert registry(app).find("seedsms").send_sms(sms(), {}).ref == "seed-1"


def test_a_nested_blueprint_is_found_by_its_own_name(app: Flask) -> None:
    memory = SeedProvider()
    outer = Blueprint("outer", "shop.outer", url_prefix="/outer", root_path="/")
    outer.register_blueprint(seed_blueprint(memory), url_prefix="/inner")
    app.register_blueprint(outer)
    assert registry(app).find("seedsms").send_sms(sms(), {}).ref == "seed-1"
    assert registry(app).find("outer.seedsms").send_sms(sms(), {}).ref == "seed-2"


def test_paths_without_a_trailing_slash_are_found(app: Flask) -> None:
    blueprint = Blueprint("plain", "shop.plain", root_path="/", url_prefix="/plain")

    @blueprint.post("/sms/send")
    def send() -> Any:
        return jsonify(success=True, data={"msg_uuid": "r1"})

    app.register_blueprint(blueprint)
    assert registry(app).find("plain").send_sms(sms(), {}) == Accepted("r1")


def test_a_provider_of_ours_mounted_here_needs_no_secret(app: Flask) -> None:
    app.register_blueprint(provider_blueprint(Simulator(), name="closed"))
    app.register_blueprint(provider_blueprint(Simulator(), name="signed", secret="a secret"))
    known = registry(app)
    for name in ("closed", "signed"):
        assert known.find(name).send_sms(sms(), {}).ref.startswith("sim-delivered-")
        assert known.find(name).learn().features == {"bulk", "stateless"}


def test_our_own_blueprint_is_not_taken_for_a_provider(app: Flask) -> None:
    app.register_blueprint(seed_blueprint(SeedProvider(), "communication"), url_prefix="/a")
    core = seed_blueprint(SeedProvider(), "renamed", "flask_communication.web")
    app.register_blueprint(core, url_prefix="/b")
    for name in ("communication", "renamed", "flask_communication", "flask_communication.web"):
        with pytest.raises(ProviderNotFound):
            registry(app).find(name)


@pytest.mark.parametrize(
    "name", ["", ".", "os", "http://evil.example", "../simulator", "Simulator", "subprocess:Popen"]
)
def test_a_name_that_nobody_made_known_is_neither_imported_nor_called(
    app: Flask, name: str
) -> None:
    app.post("/sms/send/")(lambda: "a view without a blueprint")
    with pytest.raises(ProviderNotFound, match="COMMUNICATION_PROVIDERS"):
        registry(app).find(name)


def test_the_error_lists_where_was_looked_and_what_is_known(app: Flask) -> None:
    app.register_blueprint(seed_blueprint(SeedProvider()), url_prefix="/seedsms")
    known = registry(app, providers={"acme": RemoteAddress("https://acme.example")})
    with pytest.raises(ProviderNotFound) as caught:
        known.find("acmee")
    for word in ("acmee", "register_provider", "entry point", "seedsms", "simulator", "acme,"):
        assert word in str(caught.value)


def test_a_blueprint_with_a_variable_in_its_url_is_not_eligible(app: Flask) -> None:
    app.register_blueprint(seed_blueprint(SeedProvider()), url_prefix="/<tenant>")
    with pytest.raises(ProviderNotFound):
        registry(app).find("seedsms")


def test_a_package_with_several_providers_is_ambiguous(app: Flask) -> None:
    for name in ("one", "two"):
        blueprint = seed_blueprint(SeedProvider(), name, f"shop.packages.{name}")
        app.register_blueprint(blueprint, url_prefix=f"/{name}")
    known = registry(app)
    assert known.find("one").name == "one"
    with pytest.raises(ProviderNotFound, match="one, two"):
        known.find("shop.packages")


def test_names_are_all_that_can_be_found(app: Flask) -> None:
    app.register_blueprint(seed_blueprint(SeedProvider()), url_prefix="/seedsms")
    known = registry(app, providers={"acme": RemoteAddress("https://acme.example")})
    known.register(Carrier())
    assert {"acme", "carrier", "seedsms", "simulator"} <= set(known.names())
    assert "" not in known.names()


def probe(app: Flask, view: Any) -> Provider:
    blueprint = Blueprint("probe", "shop.probe", root_path="/", url_prefix="/probe")
    blueprint.post("/sms/send/")(view)
    app.register_blueprint(blueprint)
    return registry(app).find("probe")


def test_a_call_inside_shares_nothing_with_the_request_around_it(app: Flask) -> None:
    seen: list[Any] = []

    def send() -> Any:
        seen.append((g.get("user"), request.cookies.get("session"), request.authorization))
        g.user = "inner"
        return jsonify(success=True, data={"msg_uuid": "r1"})

    provider = probe(app, send)
    headers = {"Cookie": "session=outer", "Authorization": "Bearer outer"}
    with app.test_request_context("/", headers=headers):
        g.user = "outer"
        provider.send_sms(sms(), {})
        assert g.user == "outer"
    assert seen == [(None, None, None)]


def test_a_call_inside_has_a_database_session_of_its_own(app: Flask) -> None:
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = SQLAlchemy(app)
    seen: list[Any] = []

    def send() -> Any:
        seen.append(db.session())
        return jsonify(success=True, data={"msg_uuid": "r1"})

    provider = probe(app, send)
    with app.test_request_context("/"):
        outer = db.session()
        provider.send_sms(sms(), {})
        assert db.session() is outer
    assert len(seen) == 1
    assert seen[0] is not outer


def test_a_call_inside_works_from_a_thread_without_a_context(app: Flask) -> None:
    provider = probe(app, lambda: jsonify(success=True, data={"msg_uuid": "r1"}))
    results: list[Accepted] = []
    thread = threading.Thread(target=lambda: results.append(provider.send_sms(sms(), {})))
    thread.start()
    thread.join(5)
    assert results == [Accepted("r1")]


def test_a_login_wall_can_tell_a_call_from_inside(app: Flask) -> None:
    @app.before_request
    def wall() -> None:
        if not request.environ.get(INTERNAL):
            abort(401)

    provider = probe(app, lambda: jsonify(success=True, data={"msg_uuid": "r1"}))
    assert provider.send_sms(sms(), {}) == Accepted("r1")
    assert app.test_client().post("/probe/sms/send/").status_code == 401


def test_a_login_wall_that_refuses_is_understood(app: Flask) -> None:
    app.before_request(lambda: abort(403))
    provider = probe(app, lambda: "never")
    with pytest.raises(Refused, match="403"):
        provider.send_sms(sms(), {})


@pytest.mark.parametrize("testing", [True, False])
def test_a_view_that_breaks_is_unknown(app: Flask, testing: bool) -> None:
    def send() -> Any:
        raise RuntimeError("CANARY")

    app.config["TESTING"] = testing
    with pytest.raises(OutcomeUnknown) as caught:
        probe(app, send).send_sms(sms(), {})
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"SERVER_NAME": "shop.example"},
        {"SERVER_NAME": "shop.example:8443"},
        {"TRUSTED_HOSTS": [".shop.example"]},
        {"APPLICATION_ROOT": "/shop"},
    ],
)
def test_the_host_finds_its_own_views_whatever_it_calls_itself(
    app: Flask, config: Mapping[str, Any]
) -> None:
    app.config.update(config)
    provider = probe(app, lambda: jsonify(success=True, data={"msg_uuid": "r1"}))
    assert provider.send_sms(sms(), {}) == Accepted("r1")


def test_a_view_that_streams_is_read_to_its_end(app: Flask) -> None:
    provider = probe(app, lambda: iter(['{"success": true, "data":', ' {"msg_uuid": "r1"}}']))
    assert provider.send_sms(sms(), {}) == Accepted("r1")
