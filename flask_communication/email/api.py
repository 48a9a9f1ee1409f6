"""The class ``Email``: write, send and follow emails, and read the inbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from flask import render_template
from jinja2 import TemplateNotFound

from ..configs.state import State, current
from ..delivery import accept
from ..delivery.accept import Draft
from ..delivery.api import MessageAPI
from ..delivery.policy.suppression import Suppressed
from ..delivery.reports import SyncResult
from ..errors import InvalidMessage
from ..providers.base import File
from ..storage import messages
from ..storage.database import HostSession
from ..storage.messages import Page
from . import attachments, compose, inbox, incoming
from .channel import CHANNEL
from .inbox import InboxResult

__all__ = ["Email", "InboxResult", "Page", "Suppressed", "SyncResult"]

FIELDS = tuple(
    "to subject body html cc bcc sender reply_to headers key in_reply_to unsubscribe files".split()
)


class Email(MessageAPI):
    """One email to write, attach to, and send.

    ``to``, ``cc``, ``bcc`` and ``reply_to`` are one mailbox (``ann@x.example``, ``Ann
    <ann@x.example>``) or a list of them; ``sender`` is one (None: COMMUNICATION_DEFAULT_SENDER, or
    the configuration's). ``body`` is plain text; with only ``html``, it is made from that.
    ``in_reply_to`` is the uuid of one of our messages, or a Message-ID. ``unsubscribe`` is an https
    address that takes a POST (RFC 8058). All of them may also be set afterwards; setting anything
    else raises AttributeError.
    """

    __slots__ = FIELDS

    channel = CHANNEL

    def __init__(
        self,
        to: object = None,
        subject: str = "",
        body: str = "",
        *,
        html: str | None = None,
        cc: object = None,
        bcc: object = None,
        sender: str | None = None,
        reply_to: object = None,
        headers: Mapping[str, str] | None = None,
        key: str | int | None = None,
        in_reply_to: str | None = None,
        unsubscribe: str | None = None,
    ) -> None:
        self.to = to
        self.subject = subject
        self.body = body
        self.html = html
        self.cc = cc
        self.bcc = bcc
        self.sender = sender
        self.reply_to = reply_to
        self.headers = headers
        self.key = key
        self.in_reply_to = in_reply_to
        self.unsubscribe = unsubscribe
        self.files: list[File] = []

    def __repr__(self) -> str:
        return f"<Email to {self.to!r}>"

    @classmethod
    def from_template(
        cls, name: str, context: Mapping[str, Any] | None = None, **fields: Any
    ) -> Self:
        """Return an email whose words are templates of the application, rendered with ``context``.

        ``name.subject``, ``name.txt`` and ``name.html`` are used as far as they exist; one of the
        last two must. ``fields`` are those of :class:`Email`. Raises :class:`InvalidMessage`.
        """
        subject, body, html = (
            _rendered(f"{name}.{kind}", context or {}) for kind in ("subject", "txt", "html")
        )
        if body is None and html is None:
            raise InvalidMessage({"template": [f"there is neither {name}.txt nor {name}.html"]})
        words = {"subject": " ".join((subject or "").split()), "body": body or "", "html": html}
        return cls(**{**words, **fields})

    def attach(
        self,
        source: Any = None,
        filename: str | None = None,
        content_type: str | None = None,
        inline: bool | str = False,
    ) -> Self:
        """Add a file and return the email; without a source nothing is added.

        ``source`` is a path, bytes, an open binary file, or what Flask gives for an upload. An
        ``inline`` one is shown by the HTML as ``cid:`` and its file name (or the string given).
        Raises :class:`InvalidMessage` for one that is too large, or a name that is none.
        """
        if source is None:
            return self
        content, named, typed = attachments.read(source)
        name = attachments.filename(filename or named or "attachment")
        kind = attachments.content_type(name, content_type or typed)
        content_id = None if inline is False else name if inline is True else str(inline)
        # Only if it may be sent with the others is it kept.
        self.files = [*attachments.checked([*self.files, File(name, kind, content, content_id)])]
        return self

    def send(
        self,
        *,
        send_at: datetime | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
        priority: str = "normal",
        metadata: Mapping[str, Any] | None = None,
        session: HostSession | None = None,
    ) -> str:
        """Accept the email and return its uuid; a worker sends it.

        The arguments are those of :meth:`SMS.send_msg`; it expires a day later unless you say.
        Raises :class:`InvalidMessage`, :class:`ConfigNotFound`, :class:`IdempotencyConflict`,
        :class:`SessionConflict`.
        """
        options = {
            "send_at": send_at,
            "expires_at": expires_at,
            "idempotency_key": idempotency_key,
            "priority": priority,
            "metadata": metadata,
        }
        return _accept([(self, options)], None, session)[0]

    @staticmethod
    def send_bulk(
        items: Sequence[Email | Mapping[str, Any]],
        key: str | int | None = None,
        *,
        session: HostSession | None = None,
    ) -> list[str]:
        """Accept many emails in one transaction, all or none, and return their uuids in order.

        Each item is an :class:`Email`, or a dictionary of its fields and of what :meth:`send`
        takes; the priority is bulk unless it says otherwise, and ``key`` is for those without their
        own. Raises what :meth:`send` raises, and names the item.
        """
        return _accept([_item(place, one) for place, one in enumerate(items)], key, session)

    @staticmethod
    def sync_inbox(
        key: str | int | None = None, progress: Callable[[int], None] = lambda _: None
    ) -> InboxResult:
        """Read the new mails of one mailbox, or of all, now and in this process.

        ``key`` names an email configuration: then a mailbox that cannot be read raises a
        :class:`ProviderError`; without a key it is logged. Raises :class:`ConfigNotFound`, and
        :class:`InvalidQuery` for a configuration without an inbox.
        """
        return inbox.sync(current(), key, progress)

    @staticmethod
    def file(msg_uuid: str, place: int) -> File:
        """Return a file of an email by its place, from 0: ``filename``, ``content`` and so on.

        Raises :class:`MessageNotFound` and :class:`FileNotFound`.
        """
        return messages.file(current().database, msg_uuid, place)

    @staticmethod
    def raw(msg_uuid: str) -> bytes:
        """Return a received email as it came (RFC 5322).

        Raises :class:`MessageNotFound`, and :class:`FileNotFound` for one that was sent, or whose
        texts were removed.
        """
        return incoming.raw(current(), msg_uuid)

    @classmethod
    def messages(
        cls,
        status: str | None = None,
        destination: str | None = None,
        key: str | int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | None = None,
        limit: int = 50,
        thread: str | None = None,
    ) -> Page:
        """Return a page of emails, newest first: ``items``, and ``next`` to pass as ``after``.

        ``destination`` is any of its recipients; ``since`` is inclusive, ``until`` is not;
        ``thread`` is the uuid of any email of a conversation. Raises :class:`InvalidQuery` that
        names the filter.
        """
        state = current()
        return messages.page(
            state.database,
            cls.channel.name,
            status=status,
            destination=destination,
            key=key,
            since=since,
            until=until,
            after=after,
            limit=limit,
            thread=thread,
            region=state.settings.default_region,
            channels=state.channels,
        )


def _rendered(name: str, context: Mapping[str, Any]) -> str | None:
    try:
        return render_template(name, **context)
    except TemplateNotFound as missing:
        # A template that includes a missing one is a mistake of the host, and is raised.
        if missing.name != name:
            raise
        return None


def _item(place: int, item: Any) -> tuple[Email, dict[str, Any]]:
    if isinstance(item, Email):
        return item, {"priority": "bulk"}
    if not isinstance(item, Mapping):
        raise InvalidMessage({f"[{place}]": ["must be an Email, or a dictionary of its fields"]})
    options = {name: item[name] for name in accept.OPTIONS if name in item}
    fields = {name: item[name] for name in item if name not in accept.OPTIONS}
    try:
        return Email(**fields), {"priority": "bulk", **options}
    except TypeError:
        names = ", ".join(sorted(map(str, fields)))
        raise InvalidMessage(
            {f"[{place}]": [f"has a field that no email has, among {names}"]}
        ) from None


def _accept(
    items: Sequence[tuple[Email, Mapping[str, Any]]],
    key: str | int | None,
    session: HostSession | None,
) -> list[str]:
    state = current()
    drafts = accept.check_all(items, lambda item: _draft(state, *item))
    return accept.accept(state, CHANNEL, drafts, key, session)


def _draft(state: State, email: Email, options: Mapping[str, Any]) -> Draft:
    fields = {name: getattr(email, name) for name in FIELDS}
    return compose.draft(state, fields, options)
