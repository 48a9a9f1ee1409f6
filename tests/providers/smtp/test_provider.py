"""Email by SMTP: what arrives, what each failure is called, and what is never said in clear."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from flask_communication import Email
from flask_communication.configs.registry import BUNDLED
from flask_communication.errors import NotSent, OutcomeUnknown, ProviderError, Refused
from flask_communication.providers.base import Accepted, File
from flask_communication.providers.smtp import SMTP
from tests.providers.smtp.test_mime import letter
from tests.support.apps import MakeApp, install, work
from tests.support.mail_servers import (
    PASSWORD,
    USER,
    Post,
    certificate,
    line_of,
    scripted,
    sink,
    until_closed,
)
from tests.support.waiting import bounded, ends_within

pytestmark = pytest.mark.usefixtures("any_address")


def config(port: int, more: Mapping[str, Any] = {}) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "security": "none", **more}


def send(port: int, more: Mapping[str, Any] = {}, **changes: Any) -> Accepted:
    # aiosmtpd's stop waits, on newer Pythons, until we have left.
    return SMTP(keep=0.05).send_email(letter(**changes), config(port, more))


# --- what arrives


def test_a_mail_arrives_as_it_was_composed() -> None:
    post = Post()
    with sink(post) as port:
        accepted = send(
            port,
            recipients=["ann@x.example", "secret@y.example"],
            body="Hello\n.\n..two\nlast",
            html="<b>Hello</b>",
            files=[File("a.bin", "application/octet-stream", b"\r\n.\r\n\0" * 1000)],
        )
    assert accepted == Accepted("<1@shop.example>")
    ((sender, recipients, raw),) = post.mails
    assert (sender, recipients) == ("shop@shop.example", ["ann@x.example", "secret@y.example"])
    plain, html, file = (part for part in message_from_bytes(raw).walk() if not part.is_multipart())
    assert plain.get_payload(decode=True) == b"Hello\r\n.\r\n..two\r\nlast\r\n"
    assert html.get_payload(decode=True) == b"<b>Hello</b>\r\n"
    assert file.get_payload(decode=True) == b"\r\n.\r\n\0" * 1000
    assert b"secret" not in raw


def test_it_is_found_by_its_name() -> None:
    assert BUNDLED["smtp"] == "flask_communication.providers.smtp:SMTP"
    properties = (SMTP.config_schema or {})["properties"]
    assert {name for name, about in properties.items() if about.get("writeOnly")} == {
        "password",
        "imap_password",
    }
    assert {"host", "imap_host"} < {
        name for name, about in properties.items() if about.get("destination")
    }


@pytest.mark.parametrize("extensions", [(), ("PIPELINING",)], ids=["in turn", "pipelined"])
def test_recipients_that_are_refused_fail_alone(extensions: tuple[str, ...]) -> None:
    post = Post(
        {"gone@x.example": "550 5.1.1 no such user", "full@x.example": "452 4.2.2 full"}, extensions
    )
    with sink(post) as port:
        provider = SMTP(keep=2)
        to = ["gone@x.example", "ann@x.example", "full@x.example", "no address"]
        accepted = provider.send_email(letter(recipients=to), config(port))
        assert post.mails[0][1] == ["ann@x.example"]
        assert {one: (type(why).__name__, why.code) for one, why in accepted.failed.items()} == {
            "gone@x.example": ("Refused", "5.1.1"),
            "full@x.example": ("NotSent", "4.2.2"),
            "no address": ("Refused", None),
        }
        full = accepted.failed["full@x.example"]
        assert isinstance(full, NotSent)
        assert full.retry_after == 300
        with pytest.raises(Refused, match="no such user"):
            provider.send_email(letter(recipients=["gone@x.example"]), config(port))
        provider.send_email(letter(), config(port))
        assert len(post.mails) == 2
        assert len(post.connections) == 1


def test_recipients_that_all_failed_each_in_its_way_are_all_in_failed() -> None:
    post = Post({"gone@x.example": "550 5.1.1 no such user", "full@x.example": "452 4.2.2 full"})
    with sink(post) as port:
        accepted = send(port, recipients=["gone@x.example", "full@x.example"])
    assert set(accepted.failed) == {"gone@x.example", "full@x.example"}
    assert not post.mails


def test_three_hundred_recipients_go_in_one_mail() -> None:
    post = Post(extensions=["PIPELINING"])
    to = [f"p{n}@x.example" for n in range(300)]
    with sink(post) as port:
        assert not send(port, recipients=to).failed
    assert post.mails[0][1] == to


def test_an_email_of_the_application_goes_all_the_way(
    make_app: MakeApp, upgraded_sqlite_url: str
) -> None:
    post = Post({"gone@x.example": "550 5.1.1 no such user"}, ["PIPELINING"])
    app = make_app(upgraded_sqlite_url)
    with sink(post) as port:
        install(
            app,
            SMTP(keep=0.05),
            type="email",
            config=config(port, {"sender": "Shop <shop@shop.example>"}),
        )
        with app.app_context():
            uuid = Email(
                ["Ann <ann@x.example>", "gone@x.example"], "Hello", "Hello Ann", bcc="b@x.example"
            ).send()
            work(app)
            told = Email.get(uuid)
    ((sender, recipients, raw),) = post.mails
    assert (sender, recipients) == ("shop@shop.example", ["ann@x.example", "b@x.example"])
    assert message_from_bytes(raw)["To"] == "Ann <ann@x.example>, gone@x.example"
    assert told.status == "sent"
    assert told.provider_ref == message_from_bytes(raw)["Message-ID"]
    assert {one.address: one.status for one in told.recipients} == {
        "ann@x.example": "sent",
        "gone@x.example": "rejected",
        "b@x.example": "sent",
    }


# --- secured and logged in


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def trusted(
    identity: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> ssl.SSLContext:
    monkeypatch.setenv("SSL_CERT_FILE", str(identity[0]))
    return identity[1]


LOGIN = {"host": "localhost", "username": USER, "password": PASSWORD}


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_we_log_in_inside_of_tls(trusted: ssl.SSLContext, security: str, mechanism: str) -> None:
    post = Post()
    other = {"PLAIN": "LOGIN", "LOGIN": "PLAIN"}[mechanism]
    options = (
        {"tls_context": trusted, "require_starttls": True}
        if security == "starttls"
        else {"tls": trusted}
    )
    with sink(post, login=True, auth_exclude_mechanism=[other], **options) as port:
        send(port, {**LOGIN, "security": security, "ehlo_name": "shop.example"})
        assert post.logins == [USER.encode()]
        with pytest.raises(Refused, match="refused the login") as failure:
            send(port, {**LOGIN, "security": security, "password": "wrong-password"})
    assert failure.value.code == "535"
    assert failure.value.http_status is None


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_nobody_vouches_for_is_refused(
    identity: tuple[Path, ssl.SSLContext], security: str
) -> None:
    with (
        sink(Post(), **{"tls_context" if security == "starttls" else "tls": identity[1]}) as port,
        pytest.raises(NotSent, match="certificate verify failed"),
    ):
        send(port, {**LOGIN, "security": security})


@pytest.mark.parametrize(("name", "days"), [("elsewhere.example", 1), ("localhost", -1)])
def test_a_wrong_name_and_an_old_certificate_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, days: int
) -> None:
    shown, context = certificate(tmp_path, name, days)
    monkeypatch.setenv("SSL_CERT_FILE", str(shown))
    with (
        sink(Post(), tls_context=context) as port,
        pytest.raises(NotSent, match=r"mismatch|expired"),
    ):
        send(port, {**LOGIN, "security": "starttls"})


def test_where_tls_speaks_no_tls_nothing_is_sent() -> None:
    with sink(Post()) as port, pytest.raises(NotSent, match="TLS failed"):
        send(port, {"security": "tls"})


def test_a_server_without_starttls_gets_no_password() -> None:
    heard: list[bytes] = []
    with server(heard=heard) as port, pytest.raises(NotSent, match="does not offer STARTTLS"):
        send(port, {**LOGIN, "host": "127.0.0.1", "security": "starttls"})
    assert [line.split()[0] for line in heard] == [b"EHLO"]


@pytest.mark.usefixtures("trusted")
def test_what_was_injected_before_tls_is_not_taken_for_what_was_said_inside() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        line_of(connection)
        connection.sendall(b"250-here\r\n250 STARTTLS\r\n")
        line_of(connection)
        connection.sendall(b"220 go\r\n250-evil\r\n250 AUTH LOGIN\r\n")
        until_closed(connection)

    with scripted(talk) as port, pytest.raises(NotSent, match="more than its reply before TLS"):
        send(port, {**LOGIN, "security": "starttls"})


def test_a_login_that_is_not_offered_is_not_tried() -> None:
    with sink(Post()) as port, pytest.raises(NotSent, match="no AUTH"):
        send(port, {"username": "ann", "password": "password"})


def test_a_password_that_the_server_repeats_is_masked() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        line_of(connection)
        connection.sendall(b"250-here\r\n250 AUTH PLAIN\r\n")
        said = line_of(connection)
        connection.sendall(b"535 you said hunter2hunter2 as " + said)

    with scripted(talk) as port, pytest.raises(Refused) as failure:
        send(port, {"username": "ann", "password": "hunter2hunter2"})
    told = str(failure.value)
    assert "you said ********" in told
    assert "hunter2" not in told
    assert "AGFubg" not in told


# --- faults

OK: dict[str, bytes] = {
    "greeting": b"220 hello\r\n",
    "EHLO": b"250-here\r\n250 SIZE 10000000\r\n",
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go on\r\n",
    ".": b"250 2.0.0 ok\r\n",
    "RSET": b"250 ok\r\n",
    "QUIT": b"",
}
HANG_UP = b""


def pipelined(answers: Mapping[str, bytes]) -> dict[str, bytes]:
    return {**answers, "EHLO": b"250-here\r\n250 PIPELINING\r\n"}


def respond(connection: socket.socket, said: bytes | None) -> None:
    """Send a reply; hang up after b"" and 421, say nothing any more after None."""
    if said is None:
        until_closed(connection)
    if not said:
        raise EOFError
    connection.sendall(said)
    if said.startswith(b"421"):
        # Closing with something unread would throw away the reply too.
        connection.shutdown(socket.SHUT_WR)
        until_closed(connection)
        raise EOFError


def mail_of(connection: socket.socket) -> bytes:
    """Read what follows DATA, with the dot."""
    mail = b""
    while not mail.endswith(b"\r\n.\r\n"):
        mail += line_of(connection)
    return mail


def server(
    changed: Mapping[str, bytes | None] = {},
    heard: list[bytes] | None = None,
    mails: list[bytes] | None = None,
) -> Any:
    """Script a server: an answer of b"" hangs up, one of None says nothing any more."""
    answers: dict[str, bytes | None] = {**OK, **changed}

    heard = [] if heard is None else heard
    mails = [] if mails is None else mails

    def talk(connection: socket.socket) -> None:
        respond(connection, answers["greeting"])
        while True:
            heard.append(line_of(connection))
            verb = heard[-1].split()[0].decode().upper()
            respond(connection, answers[verb])
            if verb == "DATA" and (answers["DATA"] or b"").startswith(b"354"):
                mails.append(mail_of(connection))
                respond(connection, answers["."])

    return scripted(talk)


VERBS = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "."]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("dress", [dict, pipelined], ids=["in turn", "pipelined"])
def test_a_server_that_shuts_down_has_not_sent(
    verb: str, dress: Callable[..., dict[str, bytes]]
) -> None:
    with (
        server({**dress({}), verb: b"421 4.3.2 closing\r\n"}) as port,
        pytest.raises(NotSent) as failure,
    ):
        send(port)
    assert failure.value.code == "4.3.2"
    assert failure.value.retry_after == 60


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [(b"451 4.7.1 greylisted\r\n", NotSent, "4.7.1"), (b"554 no\r\n", Refused, "554")],
    ids=["4xx", "5xx"],
)
def test_what_a_server_says_decides_at_every_verb(
    verb: str, reply: bytes, kind: type[ProviderError], code: str
) -> None:
    with server({verb: reply}) as port, pytest.raises(kind) as failure:
        send(port)
    assert failure.value.code == code


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "fault",
    [HANG_UP, None, b"250-" + b"x" * 1000 + b"\r\n", b"HTTP/1.1 400 Bad Request\r\n"],
    ids=["hangs up", "hangs", "half a reply", "no SMTP"],
)
def test_silence_is_not_sent_before_the_end_of_the_message_and_unknown_after_it(
    verb: str, fault: bytes | None
) -> None:
    kind = OutcomeUnknown if verb == "." else NotSent
    with server({verb: fault}) as port, ends_within(3), pytest.raises(kind) as failure:
        send(port, {"timeout": 0.5})
    assert type(failure.value) is kind


def test_a_reply_without_end_is_cut_off() -> None:
    endless = (b"250-" + b"x" * 500 + b"\r\n") * 2000 + b"250 ok\r\n"
    for verb, reply, outcome in (
        ("EHLO", endless, NotSent),
        ("MAIL", b"2" * 1_000_000, NotSent),
        (".", endless, OutcomeUnknown),
    ):
        told = pytest.raises(outcome, match="does not stop talking")
        with server({verb: reply}) as port, bounded(1), told:
            send(port, {"timeout": 1})


def test_an_answer_that_means_nothing_after_the_message_is_unknown() -> None:
    with (
        server({".": b"354 go on\r\n"}) as port,
        pytest.raises(OutcomeUnknown, match="says nothing"),
    ):
        send(port)


def test_a_server_that_drips_does_not_hold_a_worker() -> None:
    def talk(connection: socket.socket) -> None:
        for byte in b"220-" + b"x" * 400:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)

    with scripted(talk) as port, bounded(1), pytest.raises(NotSent, match="no answer in time"):
        send(port, {"timeout": 1})


def test_a_server_that_does_not_read_does_not_hold_a_worker() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        for reply in (b"250 here\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"):
            line_of(connection)
            connection.sendall(reply)
        done.wait(60)

    done = threading.Event()
    with scripted(talk) as port:
        # To make a mail of 20 MB takes time and memory of its own.
        with bounded(5, 200_000_000), pytest.raises(NotSent, match="no answer in time"):
            send(port, {"timeout": 1}, files=[File("big", "application/zip", bytes(20_000_000))])
        done.set()


def test_a_refused_connection_and_an_unknown_name_are_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NotSent, match="refused"):
        send(port)
    with pytest.raises(NotSent, match="nothing was sent"):
        send(25, {"host": "nowhere.invalid"})
    with pytest.raises(NotSent, match="unusable"):
        send(25, {"host": "a..b" + "x" * 70})


@pytest.mark.parametrize(
    "wrong",
    [{"host": ""}, {"port": "x"}, {"port": -1}, {"security": "maybe"}, {"ehlo_name": "a\r\nMAIL"}],
)
def test_a_wrong_configuration_says_what_to_mend(wrong: dict[str, Any]) -> None:
    with pytest.raises(NotSent, match=r"correct|must be"):
        send(25, wrong)


@pytest.mark.parametrize("data", [b"354 go on\r\n", b"503 no recipients\r\n"])
def test_a_pipelining_server_without_recipients_gets_no_message(data: bytes) -> None:
    heard: list[bytes] = []
    with (
        server(pipelined({"RCPT": b"550 no\r\n", "DATA": data}), heard) as port,
        pytest.raises(Refused),
    ):
        send(port)
    assert [line.split()[0] for line in heard][:4] == [b"EHLO", b"MAIL", b"RCPT", b"DATA"]
    assert not any(b"Subject" in line for line in heard)


def test_who_refuses_the_message_after_refusing_a_recipient_has_failed_for_both() -> None:
    post = Post({"gone@x.example": "550 5.1.1 no such user"})
    with sink(post, data_size_limit=1000) as port:
        accepted = send(port, recipients=["gone@x.example", "ann@x.example"], body="x")
        assert set(accepted.failed) == {"gone@x.example"}
        with pytest.raises(Refused, match="1000"):
            send(port, body="x" * 2000)
    assert len(post.mails) == 1


def test_addresses_that_are_not_ascii_need_a_server_that_takes_them() -> None:
    post = Post()
    with sink(post, enable_SMTPUTF8=True) as port:
        send(port, to=["jörg@x.example"], recipients=["jörg@x.example"])
    assert post.mails[0][1] == ["jörg@x.example"]
    assert {"SMTPUTF8", "BODY=8BITMIME"} < set(post.options[0])
    plain = Post()
    with sink(plain) as port:
        both = ["ann@x.example", "jörg@x.example"]
        accepted = send(port, to=both, recipients=both)
        assert {one: str(why) for one, why in accepted.failed.items()} == {
            "jörg@x.example": "the address is not ASCII before the @, and 127.0.0.1 does not "
            "offer SMTPUTF8; write to another address of theirs"
        }
        for wrong in ({"sender": "jörg@x.example"}, {"reply_to": ["jörg@x.example"]}):
            with pytest.raises(Refused, match=r"jörg@x\.example, is not ASCII before the @"):
                send(port, **wrong)
    ((_, recipients, raw),) = plain.mails
    assert recipients == ["ann@x.example"]
    assert raw.isascii()


def test_a_domain_that_is_not_ascii_needs_no_server_that_takes_it() -> None:
    post = Post({"gone@xn--bcher-kva.example": "550 5.1.1 no such user"})
    to = ["ann@bücher.example", "ann@xn--bcher-kva.example", "gone@bücher.example"]
    with sink(post) as port:
        accepted = send(port, sender="Shop <shop@bücher.example>", to=to, recipients=to)
    assert set(accepted.failed) == {"gone@bücher.example"}
    assert post.mails[0][:2] == ("shop@xn--bcher-kva.example", ["ann@xn--bcher-kva.example"])


def test_an_address_cannot_speak_smtp() -> None:
    heard: list[bytes] = []
    with server(heard=heard) as port:
        accepted = send(
            port, recipients=["ann@x.example", "b@x.example>\r\nRCPT TO:<evil@x.example"]
        )
        with pytest.raises(Refused):
            send(port, sender="Shop <a@b.example>\r\nRCPT TO:<evil@x.example>")
    assert len(accepted.failed) == 1
    assert not any(line.startswith(b"RCPT TO:<evil") for line in heard)


# --- connections are kept


def test_a_connection_serves_many_messages_of_all_threads() -> None:
    post = Post(extensions=["PIPELINING"])
    provider = SMTP(keep=2)
    with sink(post) as port:
        for number in range(20):
            provider.send_email(letter(subject=str(number)), config(port))
        assert len(post.connections) == 1
        threads = [
            threading.Thread(
                target=copy_context().run, args=[provider.send_email, letter(), config(port)]
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(post.mails) == 24
        assert len(post.connections) <= 4
        provider.send_email(letter(), config(port, {"ehlo_name": "other.example"}))
        assert len(post.connections) <= 5


@pytest.mark.parametrize(
    "last", [b"", b"421 4.4.2 idle too long\r\n"], ids=["silently", "with a word"]
)
def test_a_connection_that_died_of_idleness_is_replaced(last: bytes) -> None:
    mails: list[bytes] = []
    died = threading.Event()
    replies = [OK[verb] for verb in ("EHLO", "MAIL", "RCPT", "DATA")]

    def talk(connection: socket.socket) -> None:
        connection.sendall(OK["greeting"])
        for reply in replies:
            line_of(connection)
            connection.sendall(reply)
        text = b""
        while not text.endswith(b"\r\n.\r\n"):
            text += line_of(connection)
        mails.append(text)
        connection.sendall(OK["."] + last)
        connection.shutdown(socket.SHUT_RDWR)
        died.set()

    provider = SMTP(keep=2)
    with scripted(talk) as port:
        for _ in range(2):
            provider.send_email(letter(), config(port))
            assert died.wait(60)
            died.clear()
    assert len(mails) == 2


def test_a_kept_connection_that_dies_on_the_next_command_is_replaced_and_sends_once() -> None:
    mails: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(OK["greeting"])
        for verb in ("EHLO", "MAIL", "RCPT", "DATA"):
            line_of(connection)
            connection.sendall(OK[verb])
        text = b""
        while not text.endswith(b"\r\n.\r\n"):
            text += line_of(connection)
        mails.append(text)
        connection.sendall(OK["."])
        line_of(connection)  # the next MAIL is answered by hanging up

    provider = SMTP(keep=2)
    with scripted(talk) as port:
        for _ in range(3):
            provider.send_email(letter(), config(port))
    assert len(mails) == 3


def test_an_idle_connection_is_closed_by_us() -> None:
    left = threading.Event()
    farewell: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(OK["greeting"])
        for verb in ("EHLO", "MAIL", "RCPT", "DATA"):
            line_of(connection)
            connection.sendall(OK[verb])
        while line_of(connection) != b".\r\n":
            pass
        connection.sendall(OK["."])
        farewell.append(line_of(connection))
        until_closed(connection)
        left.set()

    with scripted(talk) as port:
        SMTP(keep=0.2).send_email(letter(), config(port))
        assert left.wait(60)
    assert farewell == [b"QUIT\r\n"]
