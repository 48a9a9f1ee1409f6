"""What a user calls to send email and to read the inbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from flask import render_template
from jinja2 import TemplateNotFound

from ..configs.state import current
from ..delivery import accept, actions, drafting, reports
from ..delivery.announce import announce
from ..delivery.policy import suppression
from ..delivery.policy.suppression import Suppressed
from ..delivery.reports import SyncResult
from ..errors import InvalidMessage
from ..formats import addresses
from ..providers.base import File
from ..storage import messages
from ..storage.messages import Page
from ..storage.models import Message
from . import attachments, compose, inbox, incoming, records
from .compose import CHANNEL, LIFETIME

__all__ = ["Email", "Page", "SyncResult"]

FIELDS = tuple(
    "to subject body html cc bcc sender reply_to headers key in_reply_to unsubscribe files".split()
)
# What it is called elsewhere.
_MEANT = {
    "text": "body",
    "msg": "body",
    "message": "body",
    "content": "body",
    "plain": "body",
    "html_body": "html",
    "title": "subject",
    "attachments": "attach()",
    "attachment": "attach()",
    "recipients": "to",
    "recipient": "to",
    "destination": "to",
    "from_": "sender",
    "from_email": "sender",
    "from_address": "sender",
    "config": "key",
}


class Email:
    """One email to write, attach to, and send.

    ``to``, ``cc``, ``bcc`` and ``reply_to`` are one mailbox (``ann@x.example``, ``Ann
    <ann@x.example>``) or a list of them; ``sender`` is one (None: COMMUNICATION_DEFAULT_SENDER, or
    the configuration's). ``body`` is plain text; with only ``html``, it is made from that.
    ``in_reply_to`` is the uuid of one of our messages, or a Message-ID. ``unsubscribe`` is an https
    address that takes a POST (RFC 8058). All of them may also be set afterwards; setting anything
    else raises AttributeError.
    """

    def __init__(
        self,
        to: Any = None,
        subject: str = "",
        body: str = "",
        html: str | None = None,
        cc: Any = None,
        bcc: Any = None,
        sender: str | None = None,
        reply_to: Any = None,
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

    def __setattr__(self, name: str, value: Any) -> None:
        # What a subclass has besides is its own business.
        if name not in FIELDS and type(self) is Email:
            import difflib

            near = [*difflib.get_close_matches(name, FIELDS, 1), ", ".join(FIELDS)]
            meant = _MEANT.get(name, near[0])
            raise AttributeError(f"an email has no {name} to set; you may mean {meant}")
        super().__setattr__(name, value)

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
        kind = attachments.kind(name, content_type or typed)
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
        session: Any = None,
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
        session: Any = None,
    ) -> list[str]:
        """Accept many emails in one transaction, all or none, and return their uuids in order.

        Each item is an :class:`Email`, or a dictionary of its fields and of what :meth:`send`
        takes; the priority is bulk unless it says otherwise, and ``key`` is for those without their
        own. Raises what :meth:`send` raises, and names the item.
        """
        return _accept([_item(place, one) for place, one in enumerate(items)], key, session)

    @staticmethod
    def retry_send(msg_uuid: str, force: bool = False) -> str:
        """Send an email again to those it has not reached, and return its uuid.

        Where it reached some, those go again who were refused, or whose mail came back. Raises
        :class:`MessageNotFound`, or :class:`NotRetryable` where it could arrive twice; ``force``
        takes that risk, and sends it to everybody.
        """
        return actions.retry(current(), CHANNEL, msg_uuid, LIFETIME, force=force)

    @staticmethod
    def cancel(msg_uuid: str) -> str:
        """Stop an email that has not left, and return its uuid.

        Raises :class:`MessageNotFound`, or :class:`NotCancellable` if it has left or may have.
        """
        return actions.cancel(current(), CHANNEL, msg_uuid)

    @staticmethod
    def resolve(msg_uuid: str, decision: str) -> str:
        """Say what became of an ``unknown`` email: ``sent``, ``resend`` or ``drop``; return its uuid.

        Raises :class:`MessageNotFound`, :class:`InvalidQuery`, or :class:`NotResolvable`.
        """
        return actions.resolve(current(), CHANNEL, msg_uuid, decision, LIFETIME)

    @staticmethod
    def release(msg_uuid: str) -> str:
        """Let a ``held`` email pass and return its uuid; no limit stops it any more.

        Raises :class:`MessageNotFound`, or :class:`NotReleasable` if it is not held.
        """
        return actions.release(current(), CHANNEL, msg_uuid, LIFETIME)

    @staticmethod
    def sync_delivery_report(progress: Callable[[int], None] = lambda asked: None) -> SyncResult:
        """Ask the providers now, in this process, about every email without a final report."""
        state = current()
        result, moved = reports.sync(state, CHANNEL, progress)
        announce(state.app, moved)
        return result

    @staticmethod
    def sync_inbox(
        key: str | int | None = None, progress: Callable[[int], None] = lambda fetched: None
    ) -> SyncResult:
        """Read what is new in one mailbox, or in all of them, now and in this process.

        ``asked`` are the mails that were fetched, ``updated`` those that are new here, ``open`` the
        mailboxes that could not be read to their end. ``key`` names an email configuration: then
        trouble is raised, as a :class:`ProviderError`; without one it is logged. Raises
        :class:`ConfigNotFound`, and :class:`InvalidQuery` for a configuration without an inbox.
        """
        return inbox.sync(current(), key, progress)

    @staticmethod
    def suppress(
        destination: str,
        sender: str | None = None,
        reason: str = "manual",
        *,
        key: str | int | None = None,
        detail: str | None = None,
    ) -> None:
        """Send no more email to an address: from anybody, one ``sender``, or one configuration (``key``).

        Its message is ``rejected`` without a call, or goes to the other recipients. Raises
        :class:`InvalidMessage`, :class:`InvalidQuery`, :class:`ConfigNotFound`.
        """
        about = None if detail is None else drafting.text("detail", detail, 500)
        to, by = _address("destination", destination), _address("sender", sender)
        suppression.suppress(current(), CHANNEL, to or "", by, key, reason, about)

    @staticmethod
    def unsuppress(
        destination: str, sender: str | None = None, *, key: str | int | None = None
    ) -> None:
        """Take back a :meth:`suppress` of the same address with the same ``sender`` or ``key``.

        Raises :class:`SuppressionNotFound`, which lists what there is, and what :meth:`suppress`
        raises.
        """
        to, by = _address("destination", destination), _address("sender", sender)
        suppression.unsuppress(current(), CHANNEL, to or "", by, key)

    @staticmethod
    def suppressed(
        destination: str | None = None, after: str | None = None, limit: int = 50
    ) -> Suppressed:
        """Return a page of suppressions, newest first: ``items``, and ``next`` to pass as ``after``.

        Raises :class:`InvalidMessage` and :class:`InvalidQuery`.
        """
        return suppression.page(
            current(), CHANNEL, _address("destination", destination), after, limit
        )

    @staticmethod
    def get(msg_uuid: str) -> Message:
        """Return one email with its attempts, events and recipients.

        Raise :class:`MessageNotFound`.
        """
        return messages.get(current(), CHANNEL, msg_uuid)

    @staticmethod
    def file(msg_uuid: str, place: int) -> File:
        """Return a file of an email, by its place among them from 0: ``filename``, ``content`` and so on.

        Raises :class:`MessageNotFound` and :class:`FileNotFound`.
        """
        return messages.file(current(), msg_uuid, place)

    @staticmethod
    def raw(msg_uuid: str) -> bytes:
        """Return a received email as it came (RFC 5322).

        Raises :class:`MessageNotFound`, and :class:`FileNotFound` for one that was sent, or whose
        texts were removed.
        """
        return incoming.raw(current(), msg_uuid)

    @staticmethod
    def messages(
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
        return messages.page(
            current(),
            CHANNEL,
            status=status,
            destination=destination,
            key=key,
            since=since,
            until=until,
            after=after,
            limit=limit,
            thread=thread,
        )


def _address(field: str, raw: str | None) -> str | None:
    return None if raw is None else addresses.bare(addresses.mailbox(field, raw)).lower()


def _rendered(name: str, context: Mapping[str, Any]) -> str | None:
    try:
        return render_template(name, **context)
    except TemplateNotFound as missing:
        # A template that includes one that is missing is the host's mistake, and is told.
        if missing.name != name:
            raise
        return None


def _item(place: int, item: Any) -> tuple[Email, dict[str, Any]]:
    if isinstance(item, Email):
        return item, {"priority": "bulk"}
    if not isinstance(item, Mapping):
        raise InvalidMessage({f"[{place}]": ["must be an Email, or a dictionary of its fields"]})
    options = {name: item[name] for name in drafting.OPTIONS if name in item}
    fields = {name: item[name] for name in item if name not in drafting.OPTIONS}
    try:
        return Email(**fields), {"priority": "bulk", **options}
    except TypeError:
        strangers = ", ".join(sorted(map(str, fields)))
        raise InvalidMessage(
            {f"[{place}]": [f"has a field that no email has, among {strangers}"]}
        ) from None


def _accept(
    items: Sequence[tuple[Email, Mapping[str, Any]]], key: str | int | None, session: Any
) -> list[str]:
    state = current()
    drafts: list[dict[str, Any]] = []
    written: list[records.Draft] = []
    wrong: dict[str, Sequence[str]] = {}
    for place, (email, options) in enumerate(items):
        try:
            draft, mail = compose.draft(
                state, {name: getattr(email, name) for name in FIELDS}, options
            )
            drafts.append(draft)
            written.append(mail)
        except InvalidMessage as invalid:
            prefix = f"[{place}]." if len(items) > 1 else ""
            wrong |= {prefix + name: reasons for name, reasons in invalid.errors.items()}
    if wrong:
        raise InvalidMessage(wrong)
    return accept.accept(state, CHANNEL, drafts, key, session, written)
