"""Only public addresses are reached, and those that the operator allowed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from flask import Flask

from flask_communication import SMS, Email
from flask_communication.configs import store
from flask_communication.configs.settings import Settings
from flask_communication.configs.state import state_of
from flask_communication.errors import NotSent, ProviderError, SettingError
from flask_communication.providers.base import Accepted, OutboundEmail, OutboundSMS, Provider
from flask_communication.providers.blueprint import provider_blueprint
from flask_communication.providers.http import Http, classify
from flask_communication.providers.net import hosts, sockets
from flask_communication.providers.remote import RemoteProvider
from flask_communication.providers.smtp import SMTP
from tests.support.apps import MakeApp, install, work
from tests.support.loopback import server

PRIVATE = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1
127.255.255.254 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.8 192.0.0.9 192.0.0.170 192.0.2.1 192.88.99.1
192.168.0.1 198.18.0.1
198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
:: ::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:7f00:1 ::127.0.0.1
64:ff9b::7f00:1 64:ff9b::10.0.0.1
64:ff9b:1::1 100::1 2001::1 2001:10::1 2001:20::1 2001:db8::1 3fff::1
2002:7f00:1:: 2002:808:808:: fc00::1 fd00:ec2::254
fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff05::2 5f00::1 4000::1
""".split()
PUBLIC = """
1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.32.0.1 192.169.0.1 223.255.255.255
2606:4700:4700::1111 2a00:1450:4001::8 ::ffff:8.8.8.8 64:ff9b::808:808
""".split()
# What getaddrinfo takes for 127.0.0.1.
SPELLINGS = ["127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "127.0.0.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_the_internets_is_not_public(address: str) -> None:
    assert not hosts.is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert hosts.is_public(address)


@contextmanager
def listener() -> Iterator[tuple[int, list[object]]]:
    """Listen on the loopback; yield the port and who came."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    came.append(listening.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1], came
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("host", SPELLINGS)
def test_however_it_is_spelled_a_private_server_is_not_reached(host: str) -> None:
    # httpx calls the last but two unusable, which will do.
    told = "is not public; if it is yours, list it in COMMUNICATION_ALLOW|is unusable"
    with listener() as (port, came), hosts.guarded([]), pytest.raises(NotSent, match=told):
        Http(deadline=2).post_json(f"http://{host}:{port}/", {})
    assert came == []


@pytest.mark.parametrize(
    "entry",
    ["127.0.0.1", "127.0.0.0/8", "localhost", "LOCALHOST.", "127.0.0.1:{port}", "localhost:{port}"],
)
def test_what_the_operator_allowed_is_reached(entry: str) -> None:
    host = "localhost" if "host" in entry.lower() else "127.0.0.1"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with hosts.guarded([entry.format(port=port)]):
            found = sockets.addresses(host, port)
        assert any(address[0] == "127.0.0.1" for _, address in found)


@pytest.mark.parametrize("entry", ["127.0.0.1:1", "10.0.0.0/8", "other.internal", "localhost:1"])
def test_what_is_allowed_allows_nothing_else(entry: str) -> None:
    with hosts.guarded([entry]), pytest.raises(hosts.Forbidden):
        sockets.addresses("127.0.0.1", 80)


def test_a_name_with_one_private_address_is_not_reached_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [(socket.AF_INET, 1, 6, "", (one, 80)) for one in ("8.8.8.8", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: answers)
    with (
        hosts.guarded([]),
        pytest.raises(hosts.Forbidden, match=r"evil\.example is at 127\.0\.0\.1"),
    ):
        sockets.addresses("evil.example", 80)


def test_the_address_that_was_checked_is_the_one_that_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def rebinding(*args: object, **_kwargs: object) -> list[object]:
        asked.append(args)
        return [(socket.AF_INET, 1, 6, "", ("203.0.113.9" if len(asked) > 1 else "8.8.8.8", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with hosts.guarded([]):
        assert sockets.addresses("evil.example", 80) == [(socket.AF_INET, ("8.8.8.8", 80))]
    assert len(asked) == 1


SMS_TO = OutboundSMS("k1", "+919999911111", "Hello")
EMAIL_TO = OutboundEmail("k1", "<k1@a.example>", "a@a.example", ["b@b.example"], "Hi", "Hi")


def over_http(port: int) -> object:
    return Http(deadline=2).post_json(f"http://127.0.0.1:{port}/", {})


def by_a_remote_provider(port: int) -> object:
    return RemoteProvider("acme", f"http://127.0.0.1:{port}").send_sms(SMS_TO, {})


def over_smtp(port: int) -> object:
    return SMTP().send_email(
        EMAIL_TO, {"host": "127.0.0.1", "port": port, "security": "none", "timeout": 1}
    )


def over_imap(port: int) -> object:
    config = {"host": "h", "imap_host": "127.0.0.1", "imap_port": port, "username": "ann"}
    return SMTP().fetch_inbox({}, 1, {**config, "imap_security": "none"})


WAYS = [over_http, by_a_remote_provider, over_smtp, over_imap]


@pytest.mark.parametrize("way", WAYS)
def test_who_says_nothing_reaches_no_private_address(way: Callable[[int], object]) -> None:
    with listener() as (port, came), pytest.raises(NotSent, match=r"is not public.*guarded\("):
        way(port)
    assert came == []


@pytest.mark.parametrize("way", WAYS)
def test_a_thread_does_not_inherit_what_another_may_reach(way: Callable[[int], object]) -> None:
    with listener() as (port, came), ThreadPoolExecutor(1) as pool:
        with hosts.unguarded():
            sending = pool.submit(way, port)
        with pytest.raises(NotSent, match="is not public"):
            sending.result()
    assert came == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("allowing", [hosts.unguarded, lambda: hosts.guarded(["127.0.0.0/8"])])
def test_who_says_so_reaches_a_private_address(
    allowing: Callable[[], AbstractContextManager[None]], way: Callable[[int], object]
) -> None:
    came: list[object] = []
    with server(came.append) as url, allowing(), pytest.raises(ProviderError):
        way(int(url.rstrip("/").rpartition(":")[2]))
    assert came


def test_a_remote_provider_that_is_not_allowed_stays_unknown() -> None:
    with listener() as (port, came):
        assert not RemoteProvider("acme", f"http://127.0.0.1:{port}").learn().known
    assert came == []


# --- In an application
# -------------------------------------------------------------------------------


class Vendor(Provider):
    """A provider whose server the operator enters."""

    name = "vendor"

    def send_sms(self, sms: OutboundSMS, config: Mapping[str, Any]) -> Accepted:
        classify(Http(deadline=2).post_json(config["url"], {}))
        return Accepted("ref")


def test_an_operator_cannot_make_us_reach_what_only_we_can(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_ALLOW_PRIVATE_HOSTS=[])
    with listener() as (port, came), app.app_context():
        for key, url in {
            "own": f"http://127.0.0.1:{port}/",
            "cloud": "http://169.254.169.254/meta",
        }.items():
            install(app, Vendor(), key=key, config={"url": url})
            uuid = SMS.send_msg("+919999911111", "Hello", key=key)
            work(app)
            message = SMS.get(uuid)
            assert message.status == "queued"
            assert "is not public; if it is yours, list it in COMMUNICATION_ALLOW" in (
                message.error or ""
            )
            assert [one.state for one in message.attempts] == ["not_sent"]
    assert came == []


def test_the_same_holds_for_mail_servers(make_app: MakeApp, upgraded_sqlite_url: str) -> None:
    app = make_app(upgraded_sqlite_url, COMMUNICATION_ALLOW_PRIVATE_HOSTS=[])
    with listener() as (port, came), app.app_context():
        config = {"host": "127.0.0.1", "port": port, "imap_host": "127.0.0.1", "imap_port": port}
        install(
            app,
            SMTP(),
            type="email",
            key="mail",
            config={**config, "username": "a", "password": "b"},
        )
        uuid = Email(
            to="ann@example.com", subject="Hi", body="Hi", sender="a@example.com", key="mail"
        ).send()
        work(app)
        assert "is not public" in (Email.get(uuid).error or "")
        with pytest.raises(NotSent, match="is not public"):
            Email.sync_inbox("mail")
    assert came == []


@pytest.mark.parametrize("allowed", [(), "127.0.0.1", ["127.0.0.1"]])
def test_a_served_provider_reaches_what_its_application_allows(allowed: object) -> None:
    came: list[object] = []
    app = Flask("served")
    app.config["COMMUNICATION_ALLOW_PRIVATE_HOSTS"] = allowed
    app.register_blueprint(provider_blueprint(Vendor(), unsigned=True))
    with server(came.append) as url:
        body = {"msg": "Hi", "destination": "+919999911111", "config": {"url": url}}
        answer = app.test_client().post("/vendor/sms/send/", json=body)
    assert ("is not public" in answer.text) == (not allowed)
    assert bool(came) == bool(allowed)


@pytest.mark.parametrize("allowed", [[], ["127.0.0.1"]])
def test_a_provider_mounted_in_the_application_reaches_what_it_allows(
    make_app: MakeApp, upgraded_sqlite_url: str, allowed: list[str]
) -> None:
    came: list[object] = []
    app = make_app(upgraded_sqlite_url, COMMUNICATION_ALLOW_PRIVATE_HOSTS=allowed)
    app.register_blueprint(provider_blueprint(Vendor(), name="mounted"))
    with server(came.append) as url, app.app_context():
        package = {"type": "sms", "provider": "", "provider_pkg_name": "mounted"}
        store.create(state_of(app), {**package, "key": "m", "config": {"url": url}})
        uuid = SMS.send_msg("+919999911111", "Hello", key="m")
        work(app)
        assert ("is not public" in (SMS.get(uuid).error or "")) == (not allowed)
    assert bool(came) == bool(allowed)


def test_a_host_of_the_setting_that_names_providers_is_allowed() -> None:
    settings = Settings.from_config(
        {
            "COMMUNICATION_PROVIDERS": {"acme": {"url": "http://user:pw@10.1.2.3:8080/acme"}},
            "COMMUNICATION_ALLOW_PRIVATE_HOSTS": ["mail.internal"],
        }
    )
    assert settings.private_hosts == ("mail.internal", "10.1.2.3:8080")


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "a:0", "a:b", "", "a b", "u@h", "10.0.0.1/8"])
def test_an_entry_that_means_nothing_is_refused(entry: str) -> None:
    with pytest.raises(SettingError, match="COMMUNICATION_ALLOW_PRIVATE_HOSTS must be a"):
        Settings.from_config({"COMMUNICATION_ALLOW_PRIVATE_HOSTS": [entry]})
