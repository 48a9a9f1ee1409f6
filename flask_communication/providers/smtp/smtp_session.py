"""An SMTP session (RFC 5321): each reply, and each missing one, becomes an outcome of the message.

smtplib is not used: its timeouts are per operation, its replies have no cap, and it waits for every
reply although a server with PIPELINING (RFC 2920) takes the whole envelope at once.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ...errors import NotSent, OutcomeUnknown, ProviderError, Refused
from ...formats.text import mask
from ..net.lines import Broken, Wire
from ..net.sockets import Clock

# A reply is a few lines; EHLO's the longest.
_REPLY_CAP = 65536
# So many recipients go out before their replies are read: more could block both sides (RFC 2920
# §3.1).
_IN_ONE_GO = 100
# Postfix waits so long before it tries a deferred mail again (minimal_backoff_time) ...
_LATER = 300.0
# ... and a server that shuts down or counts connections is back earlier.
_SOON = 60.0
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s|\Z)")


@dataclass(frozen=True)
class Server:
    """The address and login of a server; messages with the same ones share a connection."""

    host: str
    port: int
    security: str
    username: str = ""
    password: str = field(default="", repr=False)
    ehlo_name: str = ""

    def secrets(self) -> Mapping[str, str]:
        """Return the strings that are masked in replies of the server."""
        return {"plain": self.password, "auth": _plain(self), "login": _base64(self.password)}


@dataclass(frozen=True)
class Envelope:
    """A message on its way: ``raw`` ends with CRLF, and the addresses are bare and checked.

    ``plain`` is what a server without SMTPUTF8 gets, or why it cannot get it.
    """

    sender: str
    recipients: Sequence[str]
    raw: bytes = field(repr=False)
    plain: bytes | Refused = field(repr=False)


class SMTPReply(NamedTuple):
    """A reply of the server."""

    code: int
    text: str

    def failure(self, what: str, secrets: Mapping[str, str]) -> ProviderError:
        """Return the error of a reply that refuses; ``what`` was refused."""
        enhanced = _ENHANCED.match(self.text)
        code = enhanced[1] if enhanced and enhanced[1][0] == str(self.code)[0] else str(self.code)
        reason = f"{what}: {self.code} {mask(self.text, secrets)}"
        if 500 <= self.code < 600:
            return Refused(reason, code=code)
        return NotSent(reason, code=code, retry_after=_SOON if self.code == 421 else _LATER)


class Closing(NotSent):
    """The server said 421: it closes the connection and has not accepted the message."""


class Session:
    """A connection that is open, secured and logged in, ready for one message after another.

    Methods raise OSError when the connection fails, and that is always *not sent*: failures after
    the end of the message are caught here.
    """

    def __init__(self, server: Server, clock: Clock) -> None:
        self.server = server
        self.usable = True
        self._wire = Wire(server.host, server.port, clock)
        self._extensions: dict[str, str] = {}
        try:
            self._enter()
        except BaseException:
            self.drop()
            raise

    def send(self, envelope: Envelope, clock: Clock) -> Mapping[str, ProviderError]:
        """Send one message.

        Return how it ended for each recipient that the server did not take it for.
        """
        self._wire.clock = clock
        self.usable = False
        envelope = self._speakable(envelope)
        known = self._unreachable(envelope)
        reached = [one for one in envelope.recipients if one not in known]
        if not reached:
            self.usable = True
            return known
        mail, rcpts, data = self._announce(envelope, reached)
        failed = {**known, **self._refused(reached, mail, rcpts)}
        left = [one for one in reached if one not in failed]
        if data is not None and data.code == 354 and left:
            ended = self._deliver(envelope.raw)
            return {**failed, **dict.fromkeys(left, ended)} if ended else failed
        if data is not None and left:
            failed |= dict.fromkeys(left, data.failure("the message", self.server.secrets()))
        # A server that waits for the message although it has no recipient can only be left.
        self.usable = (data is None or data.code != 354) and self._reset()
        return failed

    def is_fresh(self) -> bool:
        """Tell whether nothing was heard since the last answer.

        A server that left has been heard.
        """
        return self.usable and self._wire.is_quiet()

    def leave(self) -> None:
        """Say QUIT, and close the connection without waiting for the reply."""
        clock = Clock()
        clock.start(1.0, 1.0)
        self._wire.clock = clock
        with suppress(OSError):
            self._wire.write(b"QUIT\r\n")
        self.drop()

    def drop(self) -> None:
        """Close the connection."""
        self.usable = False
        self._wire.close()

    def _enter(self) -> None:
        if self.server.security == "tls":
            self._wire.start_tls()
        self._demand(self._reply(), 220, "the greeting")
        self._hello()
        if self.server.security == "starttls":
            if "STARTTLS" not in self._extensions:
                raise NotSent(
                    f"{self.server.host} does not offer STARTTLS, or an attacker hides it; "
                    "nothing is sent unencrypted. Correct port and security (465 wants tls)"
                )
            self._demand(self._ask("STARTTLS"), 220, "STARTTLS")
            self._wire.start_tls()
            # Before TLS anybody in between may have said it (RFC 3207 §4.2).
            self._hello()
        if self.server.username:
            self._log_in()

    def _hello(self) -> None:
        name = self.server.ehlo_name or self._wire.local_address()
        reply = self._ask(f"EHLO {name}")
        self._demand(reply, 250, "EHLO")
        lines = (line.partition(" ") for line in reply.text.split("\n")[1:])
        self._extensions = {keyword.strip().upper(): more.strip() for keyword, _, more in lines}

    def _log_in(self) -> None:
        offered = self._extensions.get("AUTH", "").upper().split()
        if "PLAIN" in offered:
            reply = self._ask(f"AUTH PLAIN {_plain(self.server)}")
        elif "LOGIN" in offered:
            reply = self._ask("AUTH LOGIN")
            for word in (self.server.username, self.server.password):
                if reply.code == 334:
                    reply = self._ask(_base64(word))
        else:
            raise NotSent(
                f"{self.server.host} offers no AUTH PLAIN or LOGIN; correct port and security, "
                "or clear the user name"
            )
        if reply.code != 235:
            refused = reply.failure(f"{self.server.host} refused the login", self.server.secrets())
            # Here the three digits say more than the enhanced code, which servers often leave out.
            refused.code = str(reply.code)
            raise refused

    def _speakable(self, envelope: Envelope) -> Envelope:
        if "SMTPUTF8" in self._extensions:
            return envelope
        if isinstance(envelope.plain, Refused):
            self.usable = True
            raise envelope.plain
        return replace(envelope, raw=envelope.plain)

    def _unreachable(self, envelope: Envelope) -> dict[str, ProviderError]:
        """Raise if the message is too large for the server; return recipients it cannot name."""
        limit = self._extensions.get("SIZE", "")
        if limit.isdecimal() and 0 < int(limit) < len(envelope.raw):
            self.usable = True
            raise Refused(
                f"the message has {len(envelope.raw)} bytes and {self.server.host} takes {limit}; "
                "send smaller files",
                code="5.3.4",
            )
        if "SMTPUTF8" in self._extensions:
            return {}
        why = (
            f"the address is not ASCII before the @, and {self.server.host} does not offer "
            "SMTPUTF8; write to another address of theirs"
        )
        return {one: Refused(why, code="5.6.7") for one in envelope.recipients if not one.isascii()}

    def _announce(
        self, envelope: Envelope, reached: Sequence[str]
    ) -> tuple[SMTPReply, Sequence[SMTPReply], SMTPReply | None]:
        """Say MAIL, RCPT and DATA, without waiting where the server allows it."""
        commands = [self._mail(envelope, reached), *(f"RCPT TO:<{one}>" for one in reached)]
        pipelined = "PIPELINING" in self._extensions
        if pipelined:
            commands.append("DATA")
        size = _IN_ONE_GO if pipelined else 1
        replies: list[SMTPReply] = []
        for start in range(0, len(commands), size):
            replies += self._ask_all(commands[start : start + size])
            if replies[0].code != 250:
                break
        rcpts = replies[1 : len(reached) + 1]
        if pipelined:
            return replies[0], rcpts, replies[-1] if len(replies) == len(commands) else None
        taken = any(_is_taken(one) for one in rcpts)
        return replies[0], rcpts, self._ask("DATA") if taken else None

    def _mail(self, envelope: Envelope, reached: Sequence[str]) -> str:
        command = f"MAIL FROM:<{envelope.sender}>"
        if "SIZE" in self._extensions:
            command += f" SIZE={len(envelope.raw)}"
        ascii_only = envelope.raw.isascii() and all(
            one.isascii() for one in (envelope.sender, *reached)
        )
        # Without these extensions nothing of the kind is left.
        return command if ascii_only else f"{command} BODY=8BITMIME SMTPUTF8"

    def _refused(
        self, reached: Sequence[str], mail: SMTPReply, rcpts: Sequence[SMTPReply]
    ) -> dict[str, ProviderError]:
        secrets = self.server.secrets()
        if mail.code != 250:
            return dict.fromkeys(reached, mail.failure("the sender", secrets))
        pairs = zip(reached, rcpts, strict=True)
        return {
            one: reply.failure("the recipient", secrets)
            for one, reply in pairs
            if not _is_taken(reply)
        }

    def _deliver(self, raw: bytes) -> ProviderError | None:
        """Send the text and its end.

        Return the failure, if any; after the end it is never an OSError.
        """
        # RFC 5321 §4.5.2; the first line is a header.
        self._wire.write(raw.replace(b"\r\n.", b"\r\n.."))
        try:
            # Apart, so that whatever failed before it is known not to have been sent.
            self._wire.write(b".\r\n")
            reply = self._reply()
        except OSError as exc:
            return OutcomeUnknown(
                f"{self.server.host}: {described(exc)} after the whole message was sent; look it "
                "up at the server by its Message-ID before sending it again"
            )
        if reply.code == 250:
            self.usable = True
            return None
        if not 400 <= reply.code < 600:
            return OutcomeUnknown(
                f"{self.server.host} answered the message with {reply.code}, which says nothing"
            )
        self.usable = reply.code != 421
        return reply.failure("the message", self.server.secrets())

    def _reset(self) -> bool:
        try:
            return self._ask("RSET").code == 250
        except (OSError, Closing):
            return False

    def _demand(self, reply: SMTPReply, code: int, what: str) -> None:
        if reply.code != code:
            raise reply.failure(f"{self.server.host} refused {what}", self.server.secrets())

    def _ask(self, command: str) -> SMTPReply:
        return self._ask_all([command])[0]

    def _ask_all(self, commands: Sequence[str]) -> list[SMTPReply]:
        self._wire.write("".join(f"{command}\r\n" for command in commands).encode())
        return [self._checked() for _ in commands]

    def _checked(self) -> SMTPReply:
        reply = self._reply()
        if reply.code == 421:
            leaving = reply.failure(
                f"{self.server.host} closes the connection", self.server.secrets()
            )
            raise Closing(leaving.reason, code=leaving.code, retry_after=_SOON)
        return reply

    def _reply(self) -> SMTPReply:
        self._wire.allow(_REPLY_CAP)
        lines: list[str] = []
        while True:
            line = self._wire.readline()
            if not re.match(rb"[2-5]\d\d(?:[ -]|\r?\n)", line):
                raise Broken(
                    f"the server did not answer in SMTP: {mask(line.decode('latin-1'))[:60]!r}"
                )
            lines.append(line[4:].decode("utf-8", "replace").strip())
            if line[3:4] != b"-":
                return SMTPReply(int(line[:3]), "\n".join(lines))


def described(exc: OSError) -> str:
    """Describe in a few words why a connection failed."""
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, ssl.SSLError):
        return f"TLS failed ({mask(str(exc))})"
    return mask(str(exc)) or type(exc).__name__


def _is_taken(reply: SMTPReply) -> bool:
    # 251: the server will forward it (RFC 5321 §3.4). 252 means the same to a submission server.
    return reply.code in (250, 251, 252)


def _plain(server: Server) -> str:
    return _base64(f"\0{server.username}\0{server.password}")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
