"""The provider ``smtp``: email by any SMTP server, and an inbox by IMAP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...errors import NotSent, ProviderError, Refused
from ..base import Accepted, Inbox, OutboundEmail, Provider
from ..net.sockets import Clock
from . import imap, mime
from .imap_session import Account
from .pool import Pool
from .smtp_session import Closing, Envelope, Server, Session, described

# Seconds; the same as for a request of any other provider.
_DEADLINE = 20.0
_CONNECT = 5.0
# Seconds. Servers close an idle connection after 30 s (Postfix under stress: 10 s) to 5 min; we
# close it first, because then we know.
_IDLE = 30.0
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_EHLO_NAME = re.compile(r"[A-Za-z0-9.:\[\]-]{0,255}\Z")


def _field(title: str, type: str = "string", **more: Any) -> dict[str, Any]:
    return {"type": type, "title": title, **more}


class SMTP(Provider):
    """Send email by an SMTP server, and fetch the replies by IMAP.

    ``security`` is ``starttls`` (the default; port 587), ``tls`` (465) or ``none`` (25), and is
    never weakened by what the server offers. Connections are kept for the next message. The
    reference is our own Message-ID, which is what servers log.
    """

    name = "smtp"
    label = "SMTP and IMAP"
    types = ("email",)
    features = frozenset({"inbox"})
    # RFC 5321 has no keys of messages: a repeated one is delivered twice.
    idempotency_window = 0
    config_schema: Mapping[str, Any] | None = {
        "type": "object",
        "required": ["host"],
        "properties": {
            "host": _field("SMTP server", destination=True),
            "port": _field("Port", "integer", minimum=1, maximum=65535, destination=True),
            "security": _field("Encryption", enum=[*_PORTS], default="starttls", destination=True),
            "username": _field("User name"),
            "password": _field("Password", writeOnly=True),
            "sender": _field("Sender of messages that name none, such as Shop <shop@example.com>"),
            "ehlo_name": _field("Name we introduce ourselves by"),
            "timeout": _field("Seconds a message may take", "number", minimum=1, maximum=_DEADLINE),
            "imap_host": _field("IMAP server, to fetch replies", destination=True),
            "imap_port": _field("IMAP port", "integer", minimum=1, maximum=65535, destination=True),
            "imap_security": _field(
                "IMAP encryption", enum=[*_PORTS], default="tls", destination=True
            ),
            "imap_username": _field("IMAP user name, if another"),
            "imap_password": _field("IMAP password, if another", writeOnly=True),
            "folders": _field("Folders to fetch, with commas between them", default="INBOX"),
        },
    }

    def __init__(self, keep: float = _IDLE) -> None:
        """Keep an idle connection for ``keep`` seconds."""
        self._sessions: Pool[Server, Session] = Pool(keep)
        self._mailboxes: imap.Mailboxes = Pool(keep)

    def send_email(self, email: OutboundEmail, config: Mapping[str, Any]) -> Accepted:
        """Send one email in one transaction.

        See :class:`.smtp_session.Session` for the outcomes.
        """
        server = _server(config)
        envelope, named, failed = _envelope(email)
        clock = Clock()
        clock.start(min(_number(config, "timeout", _DEADLINE), _DEADLINE), _CONNECT)
        if envelope.recipients:
            ended = self._send(server, envelope, clock)
            failed |= {one: why for address, why in ended.items() for one in named[address]}
        return _outcome(email, failed)

    def check(self, config: Mapping[str, Any]) -> str:
        """Connect, start TLS, log in and leave, by SMTP and, if it was entered, by IMAP."""
        server = _server(config)
        clock = Clock()
        clock.start(min(_number(config, "timeout", _DEADLINE), _DEADLINE), _CONNECT)
        try:
            Session(server, clock).leave()
        except OSError as exc:
            raise NotSent(
                f"{server.host}:{server.port}: {described(exc)}; check host, port and security"
            ) from None
        found = f"{server.host}:{server.port} can be reached" + (
            " and accepts the login" if server.username else ""
        )
        if not self.has_inbox(config):
            return found
        account = _account(config)
        imap.check(account)
        return f"{found}; {account.host}:{account.port} accepts the login, to fetch mail"

    def has_inbox(self, config: Mapping[str, Any]) -> bool:
        """Tell whether an IMAP server was entered."""
        return bool(_text(config, "imap_host"))

    def fetch_inbox(
        self, cursor: Mapping[str, Any], limit: int, config: Mapping[str, Any]
    ) -> Inbox:
        """Fetch what is new in the folders; see :mod:`.imap`."""
        return imap.fetch(_account(config), cursor, limit, pool=self._mailboxes)

    def _send(
        self, server: Server, envelope: Envelope, clock: Clock
    ) -> Mapping[str, ProviderError]:
        kept = self._sessions.take(server)
        try:
            if kept is not None:
                try:
                    return self._through(kept, envelope, clock)
                except (OSError, Closing):
                    # The server closed it while it was idle, before the message.
                    clock.left()
            return self._through(Session(server, clock), envelope, clock)
        except OSError as exc:
            raise NotSent(
                f"{server.host}:{server.port}: {described(exc)}, so nothing was sent; "
                "check host, port and security"
            ) from None

    def _through(
        self, session: Session, envelope: Envelope, clock: Clock
    ) -> Mapping[str, ProviderError]:
        try:
            return session.send(envelope, clock)
        finally:
            if session.usable:
                self._sessions.give(session.server, session)
            else:
                session.drop()


def _envelope(
    email: OutboundEmail,
) -> tuple[Envelope, dict[str, list[str]], dict[str, ProviderError]]:
    """Return the envelope, its addresses with their recipients, and the failed recipients."""
    sender, raw = mime.address_of(email.sender), mime.compose(email)
    reachable: dict[str, list[str]] = {}
    failed: dict[str, ProviderError] = {}
    for recipient in dict.fromkeys(email.recipients):
        try:
            address = mime.address_of(recipient)
            if "<" in recipient or recipient != recipient.strip():
                raise Refused(f"{recipient[:80]!r} is not a bare address")
            reachable.setdefault(address, []).append(recipient)
        except Refused as refused:
            failed[recipient] = refused
    if not reachable and not failed:
        raise Refused("the email has no recipients")
    return Envelope(sender, [*reachable], raw, _plain(email, raw)), reachable, failed


def _plain(email: OutboundEmail, raw: bytes) -> bytes | Refused:
    """Return the message for a server that takes only ASCII, or why it cannot be written so."""
    if raw.isascii():
        return raw
    try:
        return mime.compose(email, plain=True)
    except Refused as refused:
        return refused


def _outcome(email: OutboundEmail, failed: Mapping[str, ProviderError]) -> Accepted:
    endings = [failed.get(one) for one in email.recipients]
    if None not in endings and len({_kind(one) for one in endings}) == 1:
        first = endings[0]
        assert first is not None
        raise first
    return Accepted(email.message_id, failed=failed)


def _kind(failure: ProviderError | None) -> type[Any]:
    return next(kind for kind in (NotSent, Refused, ProviderError) if isinstance(failure, kind))


def _server(config: Mapping[str, Any]) -> Server:
    security = _text(config, "security", "starttls")
    if security not in _PORTS:
        raise NotSent(f"security must be one of {', '.join(_PORTS)}, not {security[:20]!r}")
    host, name = _text(config, "host"), _text(config, "ehlo_name")
    if not host or not _EHLO_NAME.match(name):
        raise NotSent(
            "the configuration has no host, or its ehlo_name is not a host name; correct it"
        )
    return Server(
        host=host,
        port=int(_number(config, "port", _PORTS[security])),
        security=security,
        username=_text(config, "username"),
        password=_text(config, "password", strip=False),
        ehlo_name=name,
    )


def _account(config: Mapping[str, Any]) -> Account:
    security, host = _text(config, "imap_security", "tls"), _text(config, "imap_host")
    if not host:
        raise Refused("the configuration has no imap_host; enter it to fetch mail")
    if security not in imap.PORTS:
        raise NotSent(
            f"imap_security must be one of {', '.join(imap.PORTS)}, not {security[:20]!r}"
        )
    return Account(
        host=host,
        port=int(_number(config, "imap_port", imap.PORTS[security])),
        security=security,
        username=_text(config, "imap_username") or _text(config, "username"),
        password=_text(config, "imap_password", strip=False)
        or _text(config, "password", strip=False),
        folders=[
            one.strip() for one in _text(config, "folders", "INBOX").split(",") if one.strip()
        ],
    )


def _text(config: Mapping[str, Any], name: str, default: str = "", *, strip: bool = True) -> str:
    raw = config.get(name)
    text = default if raw is None or raw == "" else str(raw)
    return text.strip() if strip else text


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    try:
        number = float(config.get(name) or default)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < 65536:
        raise NotSent(f"{name} must be a number from 1 to 65535; correct the configuration")
    return number
