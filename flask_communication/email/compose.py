"""Check the fields of an email, and make the draft of its message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from ..configs.settings import Settings
from ..configs.state import State
from ..delivery import accept
from ..delivery.accept import Draft
from ..errors import InvalidMessage
from ..formats import addresses
from ..formats.files import File
from ..formats.text import LONGEST_TEXT, header_line, multiline
from ..storage import messages
from ..storage.files import sha256
from . import attachments, records
from .attachments import LARGEST_EMAIL
from .channel import CHANNEL

# RFC 5322 §2.1.1.
LONGEST_SUBJECT = 998
MOST_REFERENCES = 20


def draft(state: State, fields: Mapping[str, Any], options: Mapping[str, Any]) -> Draft:
    """Return the draft of the message that an :class:`Email` with these fields is.

    Raises :class:`InvalidMessage` that names the fields.
    """
    groups = {
        kind: addresses.mailboxes(kind, fields[kind]) for kind in ("to", "cc", "bcc", "reply_to")
    }
    people = addresses.recipients(groups)
    sender = _sender(fields["sender"], state.settings)
    body, html = _texts(fields["body"], fields["html"])
    reply = _reply_columns(state, fields["in_reply_to"])
    columns = {
        "subject": header_line("subject", fields["subject"], LONGEST_SUBJECT),
        "html": html,
        "mailboxes": groups,
        "headers": addresses.headers(fields["headers"]) | _unsubscribe(fields["unsubscribe"]),
        **reply,
    }
    files = attachments.checked(fields["files"])
    _refuse_too_large(body, html, files)
    if not (columns["subject"].strip() or body.strip() or html or files):
        raise InvalidMessage(
            {"body": ["is empty, and so is the subject; an email needs a text or a file"]}
        )
    checked = accept.options(options, CHANNEL.lifetime)
    draft = Draft(
        people[0][1],
        body,
        sender,
        accept.key(fields["key"]),
        checked,
        records.Draft("", columns, people, files),
    )
    if checked.idempotency_key is None:
        return draft
    return replace(draft, body_hash=_hash(draft, columns, files))


def _sender(raw: object, settings: Settings) -> str | None:
    if raw is not None:
        return addresses.mailbox("sender", raw)
    default = settings.default_sender
    return (
        addresses.mailbox("COMMUNICATION_DEFAULT_SENDER", default)
        if default and "@" in default
        else None
    )


def _texts(body: Any, html: Any) -> tuple[str, str | None]:
    for name, raw in (("body", body), ("html", html)):
        if raw is not None:
            multiline(name, raw, LONGEST_TEXT)
    if not body and html:
        from ..formats import html as markup

        body = markup.text_of(html)
    return body or "", html or None


def _unsubscribe(address: Any) -> dict[str, str]:
    if address is None:
        return {}
    usable = isinstance(address, str) and address.startswith("https://") and address.isascii()
    if not usable or ">" in address or " " in address:
        raise InvalidMessage(
            {"unsubscribe": ["must be an https address that takes a POST (RFC 8058)"]}
        )
    header_line("unsubscribe", address, 900)
    return {
        "List-Unsubscribe": f"<{address}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


def _reply_columns(state: State, raw: Any) -> dict[str, Any]:
    """Return the columns of a reply; ``raw`` is the uuid or the Message-ID of what it answers."""
    if raw is None:
        return {"refs": [], "in_reply_to": None}
    if isinstance(raw, str) and addresses.is_message_id(raw):
        return {"refs": [raw], "in_reply_to": raw}
    earlier = messages.get(state.database, CHANNEL.name, _uuid(raw))
    assert earlier.mail is not None
    message_id, thread = earlier.mail.rfc_message_id, earlier.mail.thread_id or earlier.id
    if message_id is None and earlier.direction == "in":
        # It came without a valid Message-ID (RFC 5322 §3.6.4); its thread is known all the same.
        return {"refs": [], "in_reply_to": None, "thread_id": thread}
    if message_id is None:
        raise InvalidMessage({"in_reply_to": ["that message has no Message-ID to answer to"]})
    return {
        "refs": [*earlier.mail.refs, message_id][-MOST_REFERENCES:],
        "in_reply_to": message_id,
        "thread_id": thread,
    }


def _uuid(raw: Any) -> str:
    try:
        return str(UUID(str(raw)))
    except ValueError:
        raise InvalidMessage(
            {"in_reply_to": ["must be the uuid of a message, or <id@host>"]}
        ) from None


def _refuse_too_large(body: str, html: str | None, files: Sequence[File]) -> None:
    size = (
        len(body.encode()) + len((html or "").encode()) + sum(len(file.content) for file in files)
    )
    if size > LARGEST_EMAIL:
        raise InvalidMessage(
            {"files": [f"the email has {size} bytes; at most {LARGEST_EMAIL} go in all"]}
        )


def _hash(draft: Draft, columns: Mapping[str, Any], attached: Sequence[File]) -> str:
    parts = [
        [draft.body, draft.sender, draft.options.meta],
        {
            name: columns.get(name)
            for name in ("subject", "html", "mailboxes", "headers", "in_reply_to")
        },
        [
            [file.filename, file.content_type, file.content_id, sha256(file.content)]
            for file in attached
        ],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
