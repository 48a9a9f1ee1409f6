"""An inbox by IMAP: every mail once, none marked, and no mail or server that stops the rest."""

from __future__ import annotations

import imaplib
import re
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from flask_communication.errors import NotSent, Refused
from flask_communication.providers.base import LARGEST_MAIL, Inbox
from flask_communication.providers.smtp import SMTP
from flask_communication.providers.smtp.imap import Mailboxes, fetch
from flask_communication.providers.smtp.imap_session import Account
from tests.support.mail_servers import (
    Post,
    certificate,
    line_of,
    mailboxes,
    scripted,
    sink,
    until_closed,
)
from tests.support.waiting import bounded, ends_within

pytestmark = pytest.mark.usefixtures("any_address")

USER, PASSWORD = "demouser", "demopass"


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def port(identity: tuple[Path, ssl.SSLContext]) -> Iterator[int]:
    """Run pymap, which offers STARTTLS."""
    with mailboxes(identity[0]) as number:
        yield number


@pytest.fixture
def trusted(identity: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(identity[0]))


@pytest.fixture
def box(port: int, identity: tuple[Path, ssl.SSLContext]) -> Iterator[imaplib.IMAP4]:
    """Give a mail program that has the same mailbox open."""
    with imaplib.IMAP4("localhost", port) as program:
        program.starttls(ssl.create_default_context(cafile=str(identity[0])))
        # imaplib writes a mail in two pieces, which would wait for each other.
        program.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        program.login(USER, PASSWORD)
        yield program


@pytest.fixture
def folder(box: imaplib.IMAP4) -> str:
    name = f"Test{secrets.token_hex(4)}"
    assert box.create(name)[0] == "OK"
    return name


def put(box: imaplib.IMAP4, folder: str, *texts: str) -> None:
    for text in texts:
        mail = f"Subject: {text}\r\n\r\n{text}\r\n".encode()
        assert box.append(folder, "", imaplib.Time2Internaldate(1_700_000_000), mail)[0] == "OK"


def look(port: int, cursor: Mapping[str, Any], limit: int = 100, **config: Any) -> Inbox:
    plain = {"imap_host": "localhost", "imap_port": port, "imap_security": "starttls"}
    return SMTP().fetch_inbox(
        cursor, limit, {**plain, "imap_username": USER, "imap_password": PASSWORD, **config}
    )


def texts(inbox: Inbox) -> list[str]:
    return [mail.raw.split(b"\r\n")[0].removeprefix(b"Subject: ").decode() for mail in inbox.mails]


# --- a real server


@pytest.mark.usefixtures("trusted")
def test_new_mail_comes_once_and_stays_unread(port: int, box: imaplib.IMAP4, folder: str) -> None:
    put(box, folder, "one", "two")
    first = look(port, {}, folders=folder)
    assert texts(first) == ["one", "two"]
    assert first.mails[0].raw == b"Subject: one\r\n\r\none\r\n"
    assert first.mails[0].received_at is not None
    assert first.mails[0].received_at.timestamp() == 1_700_000_000
    assert first.mails[0].flaw is None
    validity = first.cursor[folder]["uidvalidity"]
    assert re.fullmatch(rf"{folder}/{validity}/\d+", first.mails[0].uid)
    assert not first.more
    put(box, folder, "three")
    second = look(port, first.cursor, folders=folder)
    assert texts(second) == ["three"]
    assert texts(look(port, second.cursor, folders=folder)) == []
    box.select(folder, readonly=True)
    assert box.search(None, "UNSEEN")[1] == [b"1 2 3"]


@pytest.mark.usefixtures("trusted")
def test_two_thousand_mails_come_in_pages_each_once(
    port: int, box: imaplib.IMAP4, folder: str
) -> None:
    put(box, folder, *(f"mail {n}" for n in range(2000)))
    cursor: Mapping[str, Any] = {}
    found: list[str] = []
    for page in range(7):
        inbox = look(port, cursor, 300, folders=folder)
        found += texts(inbox)
        cursor = inbox.cursor
        assert inbox.more is (page < 6)
    assert found == [f"mail {n}" for n in range(2000)]


@pytest.mark.usefixtures("trusted")
def test_a_folder_that_was_made_anew_is_read_from_its_beginning(
    port: int, box: imaplib.IMAP4, folder: str
) -> None:
    put(box, folder, "one", "two", "three")
    cursor = look(port, {}, folders=folder).cursor
    box.delete(folder)
    box.create(folder)
    put(box, folder, "new")
    again = look(port, cursor, folders=folder)
    assert texts(again) == ["new"]
    assert again.cursor[folder]["uidvalidity"] != cursor[folder]["uidvalidity"]


@pytest.mark.usefixtures("trusted")
def test_folders_are_read_in_turn_whatever_their_names(
    port: int, box: imaplib.IMAP4, folder: str
) -> None:
    other = f"Entwürfe & 日本語 {folder}"
    box.create(f'"Entw&APw-rfe &- &ZeVnLIqe- {folder}"')
    put(box, folder, "one", "two")
    put(box, f'"Entw&APw-rfe &- &ZeVnLIqe- {folder}"', "three")
    names = f"{folder}, {other}"
    first = look(port, {}, 2, folders=names)
    assert (texts(first), first.more) == (["one", "two"], True)
    second = look(port, first.cursor, 2, folders=names)
    assert (texts(second), second.more) == (["three"], False)
    assert second.mails[0].folder == other


@pytest.mark.usefixtures("trusted")
def test_a_folder_that_is_gone_is_reported_after_the_mails_of_the_others(
    port: int, box: imaplib.IMAP4, folder: str
) -> None:
    put(box, folder, "one")
    names = f"Nowhere, {folder}"
    first = look(port, {}, folders=names)
    assert (texts(first), first.more) == (["one"], True)
    with pytest.raises(Refused, match="'Nowhere'"):
        look(port, first.cursor, folders=names)


@pytest.mark.usefixtures("trusted")
def test_mails_that_were_deleted_leave_no_gap(port: int, box: imaplib.IMAP4, folder: str) -> None:
    put(box, folder, "one", "two", "three")
    box.select(folder)
    box.store("2:3", "+FLAGS", "\\Deleted")
    box.expunge()
    first = look(port, {}, folders=folder)
    assert texts(first) == ["one"]
    put(box, folder, "four")
    assert texts(look(port, first.cursor, folders=folder)) == ["four"]


@pytest.mark.usefixtures("trusted")
def test_a_check_logs_in_and_reads_nothing(port: int, box: imaplib.IMAP4, folder: str) -> None:
    put(box, folder, "one")
    known = {"imap_host": "localhost", "imap_port": port, "imap_security": "starttls"}
    known |= {"imap_username": USER, "imap_password": PASSWORD, "folders": folder}
    with sink(Post()) as smtp:
        known |= {"host": "127.0.0.1", "port": smtp, "security": "none"}
        assert SMTP().check(known).endswith(f"localhost:{port} accepts the login, to fetch mail")
        with pytest.raises(Refused, match="refused the login"):
            SMTP().check({**known, "imap_password": "wrong-password"})


@pytest.mark.usefixtures("trusted")
def test_a_wrong_password_is_refused(port: int) -> None:
    with pytest.raises(Refused, match="refused the login") as failure:
        look(port, {}, imap_password="wrong-password")
    assert "wrong-password" not in str(failure.value)


def test_a_certificate_nobody_vouches_for_is_refused(port: int) -> None:
    with pytest.raises(NotSent, match="certificate verify failed"):
        look(port, {})


def test_without_imap_there_is_no_inbox() -> None:
    with pytest.raises(Refused, match="imap_host"):
        look(143, {}, imap_host="")
    with pytest.raises(NotSent, match="imap_security"):
        look(143, {}, imap_security="maybe")


# --- servers that misbehave

Say = Callable[[str], bytes | None]
MAIL = b"Subject: hello\r\n\r\nhello\r\n"


def respond(connection: socket.socket, tag: str, said: bytes | None) -> None:
    """Answer a command; hang up (EOFError) after an answer without its end."""
    if said is None:
        until_closed(connection)
    elif said.startswith((b"NO", b"BAD")):
        connection.sendall(f"{tag} ".encode() + said + b"\r\n")
    elif said.endswith(b"\r\n") or not said:
        connection.sendall(said + f"{tag} OK done\r\n".encode())
    else:
        connection.sendall(said)
        raise EOFError


def server(
    say: Say,
    *,
    greeting: bytes = b"* OK hello\r\n",
    offers: bytes = b"AUTH=PLAIN",
    heard: list[str] | None = None,
) -> AbstractContextManager[int]:
    """Script a server; ``say`` answers commands after the login: None hangs, b"" closes."""

    def answer(command: str) -> bytes | None:
        if command == "CAPABILITY":
            return b"* CAPABILITY IMAP4rev1 " + offers + b"\r\n"
        return say(command)

    def talk(connection: socket.socket) -> None:
        connection.sendall(greeting)
        while True:
            tag, _, command = line_of(connection).decode().strip().partition(" ")
            if heard is not None:
                heard.append(command)
            if command == "AUTHENTICATE PLAIN":
                connection.sendall(b"+ \r\n")
                line_of(connection)
            said = b"" if command == "AUTHENTICATE PLAIN" else answer(command)
            respond(connection, tag, said)

    return scripted(talk)


def mailbox(
    mails: Mapping[int, bytes], changed: Mapping[str, bytes | None] = {}, *, tells_next: bool = True
) -> Say:
    """Answer as a mailbox with these mails does, but for the commands of ``changed``."""

    def one(uid: int, what: str) -> bytes:
        mail = mails[uid]
        if what == "RFC822.SIZE":
            return (
                b'* 1 FETCH (UID %d RFC822.SIZE %d INTERNALDATE "17-Jul-2026 02:44:25 +0000")\r\n'
                % (
                    uid,
                    len(mail),
                )
            )
        if what == "BODY.PEEK[HEADER]":
            mail, _, _ = mail.partition(b"\r\n\r\n")
            mail += b"\r\n\r\n"
        label = what.replace(".PEEK", "").encode()
        return b"* 1 FETCH (UID %d %s {%d}\r\n%s)\r\n" % (uid, label, len(mail), mail)

    def say(command: str) -> bytes | None:
        if command in changed:
            return changed[command]
        if command.startswith("EXAMINE"):
            known = b"* %d EXISTS\r\n* OK [UIDVALIDITY 7]\r\n" % len(mails)
            return known + (b"* OK [UIDNEXT %d]\r\n" % (max(mails) + 1) if tells_next else b"")
        if found := re.fullmatch(r"UID SEARCH UID (\d+):\*", command):
            uids = [uid for uid in mails if uid >= int(found[1])] or [max(mails)]
            return f"* SEARCH {' '.join(map(str, uids))}\r\n".encode()
        found = re.fullmatch(r"UID FETCH ([\d,]+) \(UID (\S+).*\)", command)
        assert found, command
        return b"".join(one(int(uid), found[2]) for uid in found[1].split(","))

    return say


def account(port: int, security: str = "none") -> Account:
    return Account("127.0.0.1", port, security, "ann", "secret-password")


MANY = dict.fromkeys(range(1, 50_001), MAIL)


@pytest.mark.parametrize(
    ("tells_next", "asked"),
    [(True, ['EXAMINE "INBOX"']), (False, ['EXAMINE "INBOX"', "UID SEARCH UID 50001:*"])],
)
def test_an_unchanged_mailbox_of_fifty_thousand_mails_costs_a_command_or_two(
    tells_next: bool, asked: list[str]
) -> None:
    heard: list[str] = []
    with server(mailbox(MANY, tells_next=tells_next), heard=heard) as port:
        inbox = fetch(account(port), {"INBOX": {"uidvalidity": 7, "uid": 50_000}}, 100)
    assert (inbox.mails, inbox.more) == ([], False)
    assert heard == ["CAPABILITY", "AUTHENTICATE PLAIN", *asked]


def test_one_new_mail_in_fifty_thousand_costs_three_commands_more() -> None:
    heard: list[str] = []
    with server(mailbox(MANY), heard=heard) as port:
        inbox = fetch(account(port), {"INBOX": {"uidvalidity": 7, "uid": 49_999}}, 100)
    assert ([one.uid for one in inbox.mails], inbox.more) == (["INBOX/7/50000"], False)
    assert len(heard) == 6


def test_a_first_look_into_fifty_thousand_mails_is_paged() -> None:
    heard: list[str] = []
    with server(mailbox(MANY), heard=heard) as port:
        inbox = fetch(account(port), {}, 100)
    assert len(inbox.mails) == 100
    assert inbox.more
    assert len(heard) <= 7


def pages(port: int, provider: SMTP, cursor: Mapping[str, Any] = {}) -> list[str]:
    """Read all pages of 100; return the uids."""
    config = {"imap_host": "127.0.0.1", "imap_port": port, "imap_security": "none"}
    found: list[str] = []
    while True:
        page = provider.fetch_inbox(
            cursor, 100, {**config, "imap_username": "ann", "imap_password": "x"}
        )
        found, cursor = [*found, *(mail.uid for mail in page.mails)], page.cursor
        if not page.more:
            return found


def test_who_reads_a_mailbox_in_pages_logs_in_once() -> None:
    heard: list[str] = []
    provider = SMTP()
    with server(mailbox(dict.fromkeys(range(1, 1001), MAIL)), heard=heard) as port:
        assert pages(port, provider) == [f"INBOX/7/{uid}" for uid in range(1, 1001)]
        assert heard.count("AUTHENTICATE PLAIN") == 1
        assert pages(port, provider, {"INBOX": {"uidvalidity": 7, "uid": 990}}) == [
            f"INBOX/7/{uid}" for uid in range(991, 1001)
        ]
        assert heard.count("AUTHENTICATE PLAIN") == 2, "the last page ends the connection"


@pytest.mark.parametrize("fault", [b"* BYE idle", b"BAD asleep", b"garbage\r\n"])
def test_a_server_that_left_between_two_pages_is_entered_again(fault: bytes) -> None:
    say, examined, heard = mailbox(dict.fromkeys(range(1, 301), MAIL)), [0], list[str]()

    def forgetful(command: str) -> bytes | None:
        examined[0] += command.startswith("EXAMINE")
        return fault if examined[0] == 2 and command.startswith("EXAMINE") else say(command)

    with server(forgetful, heard=heard) as port:
        assert pages(port, SMTP()) == [f"INBOX/7/{uid}" for uid in range(1, 301)]
    assert heard.count("AUTHENTICATE PLAIN") == 2


def test_a_connection_is_neither_kept_for_long_nor_given_to_another_account() -> None:
    heard: list[str] = []
    with server(mailbox(dict.fromkeys(range(1, 301), MAIL)), heard=heard) as port:
        pages(port, SMTP(keep=0.0))
        assert heard.count("AUTHENTICATE PLAIN") == 3
        pool: Mailboxes = Mailboxes(keep=30)
        first = fetch(account(port), {}, 100, pool=pool)
        assert first.more
        other = Account("127.0.0.1", port, "none", "bob", "another-password")
        fetch(other, {}, 100, pool=pool)
        assert heard.count("AUTHENTICATE PLAIN") == 5


def test_a_mail_that_is_too_large_comes_as_its_headers() -> None:
    mails = {1: MAIL, 2: MAIL, 3: MAIL}
    sizes = "UID FETCH 1,2,3 (UID RFC822.SIZE INTERNALDATE)"
    said = b"".join(
        b"* 1 FETCH (UID %d RFC822.SIZE %d)\r\n" % (uid, size)
        for uid, size in ((1, 24), (2, LARGEST_MAIL + 1), (3, 24))
    )
    with server(mailbox(mails, {sizes: said})) as port:
        inbox = fetch(account(port), {}, 100)
    assert [mail.raw for mail in inbox.mails] == [MAIL, b"Subject: hello\r\n\r\n", MAIL]
    assert "25000001 bytes" in (inbox.mails[1].flaw or "")
    assert [inbox.mails[n].flaw for n in (0, 2)] == [None, None]


def test_a_mail_that_is_larger_than_it_was_listed_comes_as_its_headers() -> None:
    mails = {1: MAIL, 2: MAIL + b"x" * LARGEST_MAIL, 3: MAIL}
    listed = b"".join(b"* 1 FETCH (UID %d RFC822.SIZE 24)\r\n" % uid for uid in mails)
    with server(mailbox(mails, {"UID FETCH 1,2,3 (UID RFC822.SIZE INTERNALDATE)": listed})) as port:
        inbox = fetch(account(port), {}, 100)
    assert [mail.raw for mail in inbox.mails] == [MAIL, b"Subject: hello\r\n\r\n", MAIL]
    assert "25000025 bytes" in (inbox.mails[1].flaw or "")


@pytest.mark.parametrize(
    "reply", [b"NO [SERVERBUG] corrupt", b"BAD what", b"* 1 FETCH (UID 2 BODY[] NIL)\r\n"]
)
@pytest.mark.parametrize("headers", [True, False])
def test_a_mail_the_server_cannot_give_does_not_block_the_others(
    reply: bytes, headers: bool
) -> None:
    changed: dict[str, bytes | None] = {
        "UID FETCH 1,2,3 (UID BODY.PEEK[])": b"NO one of them is corrupt",
        "UID FETCH 2 (UID BODY.PEEK[])": reply,
    }
    if not headers:
        changed["UID FETCH 2 (UID BODY.PEEK[HEADER])"] = b"NO neither"
    with server(mailbox({1: MAIL, 2: MAIL, 3: MAIL}, changed)) as port:
        inbox = fetch(account(port), {}, 100)
    assert [mail.raw for mail in inbox.mails] == [
        MAIL,
        b"Subject: hello\r\n\r\n" if headers else b"",
        MAIL,
    ]
    assert "cannot give it" in (inbox.mails[1].flaw or "")
    assert inbox.cursor["INBOX"] == {"uidvalidity": 7, "uid": 3}
    assert not inbox.more


def test_a_mail_that_vanishes_meanwhile_is_passed_over() -> None:
    changed: dict[str, bytes | None] = {
        "UID FETCH 1,2 (UID BODY.PEEK[])": b"* 2 FETCH (UID 2 BODY[] {25}\r\n" + MAIL + b")\r\n",
        "UID FETCH 1 (UID BODY.PEEK[])": b"",
        "UID SEARCH UID 1:*": b"* SEARCH 1 2\r\n",
    }
    say = mailbox({1: MAIL, 2: MAIL}, changed)
    seen: list[str] = []

    def forgetful(command: str) -> bytes | None:
        seen.append(command)
        return (
            b"* SEARCH 2\r\n"
            if seen.count("UID SEARCH UID 1:*") == 2 and "SEARCH" in command
            else say(command)
        )

    with server(forgetful) as port:
        inbox = fetch(account(port), {}, 100)
    assert [mail.uid for mail in inbox.mails] == ["INBOX/7/2"]


def test_bodies_come_as_literals_or_quoted_with_their_uid_before_or_after() -> None:
    said = (
        b"* 9 FETCH (FLAGS (\\Seen))\r\n"
        b"* 1 FETCH (BODY[] {25}\r\n" + MAIL + b" UID 1)\r\n"
        b'* 2 FETCH (UID 2 BODY[] "a \\"b\\" c")\r\n'
        b"* 3 FETCH (UID 3 FLAGS () BODY[] {0}\r\n)\r\n"
        b"* 8 FETCH (UID 88 BODY[] {3}\r\nxyz)\r\n"
    )
    with server(
        mailbox(dict.fromkeys([1, 2, 3], MAIL), {"UID FETCH 1,2,3 (UID BODY.PEEK[])": said})
    ) as port:
        inbox = fetch(account(port), {}, 100)
    assert [mail.raw for mail in inbox.mails] == [MAIL, b'a "b" c', b""]
    assert all(mail.flaw is None for mail in inbox.mails)


def test_a_uid_that_is_listed_twice_is_one_mail() -> None:
    with server(
        mailbox({5: MAIL}, {"UID SEARCH UID 1:*": b"* SEARCH 5 5 5 99999999999 x\r\n"})
    ) as port:
        assert [mail.uid for mail in fetch(account(port), {}, 100).mails] == ["INBOX/7/5"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"* 1 FETCH (UID 1 BODY[] {2147483648}\r\nSubject", "2147483648 bytes"),
        (
            b"* 1 FETCH (UID 1 BODY[] {" + b"9" * 5000 + b"}\r\n",
            "integer string|unreadable|Exceeds",
        ),
        (b"* 1 FETCH (UID 1 BODY[] {24}\r\nSubject: h", "closed the connection"),
        (b"* 1 FETCH (UID 1 BODY", "closed the connection"),
        (b"* BYE shutting down\r\n", "BYE|shutting"),
        (b"x" * 1000 + b"\r\n", "unexpected response"),
    ],
    ids=["2 GB", "no number", "drop in a literal", "drop in a line", "bye", "garbage"],
)
def test_a_drop_in_the_middle_loses_nothing(said: bytes, told: str) -> None:
    fault = {f"UID FETCH 1 (UID BODY.PEEK[{what}])": said for what in ("", "HEADER")}
    with server(mailbox({1: MAIL}, fault)) as port, pytest.raises(NotSent, match=told):
        fetch(account(port), {}, 100)


def test_a_drop_that_happens_once_is_not_noticed() -> None:
    say = mailbox({1: MAIL, 2: MAIL})
    dropped: list[str] = []

    def drop_once(command: str) -> bytes | None:
        if "BODY.PEEK" in command and not dropped:
            dropped.append(command)
            return b"* 1 FETCH (UID 1 BODY[] {25}\r\nSubject"
        return say(command)

    with server(drop_once) as port:
        inbox = fetch(account(port), {}, 100)
    assert [(mail.raw, mail.flaw) for mail in inbox.mails] == [(MAIL, None)] * 2
    assert dropped


def test_a_mail_that_always_breaks_the_connection_does_not_block_those_behind_it() -> None:
    say = mailbox(dict.fromkeys([1, 2, 3], MAIL))

    def poisoned(command: str) -> bytes | None:
        bodies = re.fullmatch(r"UID FETCH ([\d,]+) \(UID BODY.PEEK\[\]\)", command)
        return (
            b"* 1 FETCH (UID 2 BODY[] {25}"
            if bodies and "2" in bodies[1].split(",")
            else say(command)
        )

    with server(poisoned) as port:
        first = fetch(account(port), {}, 100)
        second = fetch(account(port), first.cursor, 100)
    assert ([mail.raw for mail in first.mails], first.more) == ([MAIL], True)
    assert [mail.raw for mail in second.mails] == [b"Subject: hello\r\n\r\n", MAIL]
    assert "broke each time" in (second.mails[0].flaw or "")
    assert not second.more


def test_what_came_before_a_drop_is_kept_and_the_rest_comes_later() -> None:
    say = mailbox(dict.fromkeys(range(1, 81), MAIL))
    with server(
        lambda command: b"* BYE" if "51," in command and "BODY" in command else say(command)
    ) as port:
        first = fetch(account(port), {}, 100)
    assert (len(first.mails), first.more) == (50, True)
    with server(say) as port:
        rest = fetch(account(port), first.cursor, 100)
    assert [mail.uid for mail in rest.mails] == [f"INBOX/7/{n}" for n in range(51, 81)]


def test_a_server_that_does_not_stop_talking_is_left() -> None:
    endless = (b"* OK " + b"x" * 995 + b"\r\n") * 20_000
    with (
        server(mailbox({1: MAIL}, {"UID SEARCH UID 1:*": endless})) as port,
        # What may be listed, and what the library makes of it.
        bounded(5, 40_000_000),
        pytest.raises(NotSent, match="does not stop talking"),
    ):
        fetch(account(port), {}, 100)


@pytest.mark.parametrize(
    "said",
    [b"* 1 X\r\n" * 200_000, b"* 1 FETCH (UID 1 X {0}\r\n" + b" {0}\r\n" * 200_000 + b")\r\n"],
    ids=["lines", "literals"],
)
def test_an_answer_of_countless_pieces_is_left(said: bytes) -> None:
    sizes = "UID FETCH 1 (UID RFC822.SIZE INTERNALDATE)"
    with (
        server(mailbox({1: MAIL}, {sizes: said})) as port,
        bounded(10, 60_000_000),
        pytest.raises(NotSent, match="does not stop talking"),
    ):
        fetch(account(port), {}, 100)


def test_a_quoted_body_of_many_megabytes_is_not_unquoted() -> None:
    said = b'* 1 FETCH (UID 1 BODY[] "' + b"x" * 8_000_000 + b'")\r\n'
    with (
        server(mailbox({1: MAIL}, {"UID FETCH 1 (UID BODY.PEEK[])": said})) as port,
        bounded(10, 80_000_000),
    ):
        inbox = fetch(account(port), {}, 100)
    assert inbox.mails[0].raw == b"Subject: hello\r\n\r\n"
    assert "cannot give it" in (inbox.mails[0].flaw or "")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("UID SEARCH UID 1:*", b"* SEARCH 1\r\n* SEARCH 2\r\n"),
        (
            "UID FETCH 1,2 (UID RFC822.SIZE INTERNALDATE)",
            b"* 2 FETCH (FLAGS ($label[1))\r\n"
            b"* 1 FETCH (UID 1 RFC822.SIZE 25 INTERNALDATE 5)\r\n"
            b"* 2 FETCH (UID 2 RFC822.SIZE 25 X " + b"(" * 2000 + b")" * 2000 + b")\r\n",
        ),
        (
            "UID FETCH 1,2 (UID BODY.PEEK[])",
            b"".join(b"* 1 FETCH (UID %d BODY[] {25}\r\n%s)\r\n" % (uid, MAIL) for uid in (1, 2))
            + b"* 2 FETCH (BODY[] {5}\r\nother)\r\n* 2 FETCH (UID 2 BODY NIL)\r\n",
        ),
    ],
    ids=["a split list", "odd words", "unasked bodies"],
)
def test_what_else_a_server_says_changes_no_mail(command: str, said: bytes) -> None:
    with server(mailbox({1: MAIL, 2: MAIL}, {command: said})) as port:
        inbox = fetch(account(port), {}, 100)
    assert [(mail.uid, mail.raw) for mail in inbox.mails] == [
        ("INBOX/7/1", MAIL),
        ("INBOX/7/2", MAIL),
    ]


@pytest.mark.parametrize(
    "command", ['EXAMINE "INBOX"', "UID SEARCH UID 1:*", "UID FETCH 1 (UID BODY.PEEK[])"]
)
def test_a_server_that_falls_silent_does_not_hold_a_worker(command: str) -> None:
    silent: dict[str, bytes | None] = {command: None, "UID FETCH 1 (UID BODY.PEEK[HEADER])": None}
    with (
        server(mailbox({1: MAIL}, silent)) as port,
        ends_within(3),
        pytest.raises(NotSent, match="no answer in time"),
    ):
        fetch(account(port), {}, 100, deadline=0.5)


def test_a_server_without_starttls_gets_no_password() -> None:
    heard: list[str] = []
    with server(mailbox({1: MAIL}), heard=heard) as port, pytest.raises(NotSent, match="STARTTLS"):
        fetch(account(port, "starttls"), {}, 100)
    assert heard == ["CAPABILITY"]


def test_who_claims_we_are_logged_in_already_gets_no_password_in_clear() -> None:
    heard: list[str] = []
    with (
        server(
            mailbox({1: MAIL}), greeting=b"* PREAUTH hi\r\n", offers=b"STARTTLS", heard=heard
        ) as port,
        pytest.raises(NotSent, match="illegal in state AUTH"),
    ):
        fetch(account(port, "starttls"), {}, 100)
    assert heard == ["CAPABILITY"]


def test_what_was_injected_before_tls_is_refused() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"* OK hi\r\n")
        tag = line_of(connection).split()[0]
        connection.sendall(b"* CAPABILITY IMAP4rev1 STARTTLS\r\n" + tag + b" OK done\r\n")
        tag = line_of(connection).split()[0]
        connection.sendall(tag + b" OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n")
        until_closed(connection)

    with scripted(talk) as port, pytest.raises(NotSent, match="more than its reply before TLS"):
        fetch(account(port, "starttls"), {}, 100)


def test_a_login_is_not_tried_where_it_is_disabled() -> None:
    with (
        server(mailbox({1: MAIL}), offers=b"LOGINDISABLED") as port,
        pytest.raises(NotSent, match="in plain text"),
    ):
        fetch(account(port), {}, 100)


def test_a_password_cannot_speak_imap() -> None:
    heard: list[str] = []
    with (
        server(mailbox({1: MAIL}), offers=b"", heard=heard) as port,
        pytest.raises(NotSent, match="control character"),
    ):
        fetch(Account("127.0.0.1", port, "none", "ann", "x\r\nA DELETE INBOX"), {}, 100)
    assert heard == ["CAPABILITY"]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(b"NO [AUTHENTICATIONFAILED] no", Refused), (b"NO [UNAVAILABLE] later", NotSent)],
)
def test_a_refused_login_is_final_unless_the_server_says_later(
    reply: bytes, kind: type[Exception]
) -> None:
    login = 'LOGIN "ann" "secret-password"'
    with server(mailbox({1: MAIL}, {login: reply}), offers=b"") as port, pytest.raises(kind):
        fetch(account(port), {}, 100)


def test_a_server_that_is_not_there_is_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NotSent, match="refused"):
        fetch(account(port), {}, 100)
