"""The record of messages: one with its whole story, or a page of many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select, union_all
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.interfaces import ORMOption

from .errors import FileNotFound, InvalidQuery, MessageNotFound
from .models import Attachment, Config, Mail, Message, Recipient
from .providers.base import File
from .state import State
from .status import STATUSES

MOST_A_PAGE = 500


class Page(NamedTuple):
    """Messages, newest first, and the cursor of the next page: pass it as ``after``; None at the end."""

    items: list[Message]
    next: str | None


def get(state: State, channel: str | None, uuid: str) -> Message:
    """Return one message with its attempts and events; raise :class:`MessageNotFound`."""
    wanted = select(Message).where(Message.uuid == str(uuid))
    if channel is not None:
        wanted = wanted.where(Message.channel == channel)
    with state.database.session() as session:
        found = session.scalar(
            wanted.options(
                selectinload(Message.attempts),
                selectinload(Message.events),
                selectinload(Message.config),
                selectinload(Message.mail).selectinload(Mail.recipients),
                selectinload(Message.mail).selectinload(Mail.attachments),
            )
        )
    if found is None:
        raise MessageNotFound(f"there is no {channel or ''} message {uuid}".replace("  ", " "))
    return found


def file(state: State, uuid: str, place: int) -> File:
    """Return one of an email's files; raise :class:`MessageNotFound` or :class:`FileNotFound`."""
    wanted = (
        select(Attachment)
        .join(Message, Message.id == Attachment.message_id)
        .where(Message.uuid == str(uuid), Attachment.place == place)
        .options(selectinload(Attachment.file))
    )
    with state.database.session() as session:
        found = session.scalar(wanted)
    if found is None:
        get(state, "email", uuid)
        raise FileNotFound(f"email {uuid} has no file {place}")
    return File(found.filename, found.content_type, bytes(found.file.content), found.content_id)


def statuses(state: State, channel: str, uuids: Sequence[str]) -> dict[str, str]:
    """Return the statuses of the messages that exist: uuid -> status."""
    if not uuids:
        return {}
    wanted = select(Message.uuid, Message.status).where(
        Message.channel == channel, Message.uuid.in_(list(uuids))
    )
    with state.database.read() as connection:
        return {row.uuid: row.status for row in connection.execute(wanted)}


def page(
    state: State,
    channel: str | None = None,
    *,
    status: str | None = None,
    destination: str | None = None,
    key: str | int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Page:
    """Return a page of messages; see :class:`Page`. ``since`` is inclusive, ``until`` is not.

    Raises :class:`InvalidQuery` that names the filter.
    """
    number = _limit(limit) + 1  # one more than asked tells whether there is a next page
    rest = [Message.id < cursor(after)] if after is not None else []
    rest += _times(since, until)
    leads = _leads(channel, status, destination)
    if status is not None and destination is not None:
        rest.append(_unindexed(Message.status) == status)
    if key is not None:
        config_id = Message.config_id if not leads else _unindexed(Message.config_id, 0)
        rest.append(config_id.in_(_configs(channel, str(key))))
    elif channel is not None:
        leads = leads or [Message.status == one for one in STATUSES]
    if channel is not None:
        rest.append(Message.channel == channel)
    wanted = select(Message).where(Message.id.in_(_newest(leads, rest, number)))
    with state.database.session() as session:
        wanted = wanted.order_by(Message.id.desc()).limit(number)
        found: list[Message] = list(session.scalars(wanted.options(*_listed())))
    more = len(found) > limit
    items = found[:limit]
    return Page(items, str(items[-1].id) if more else None)


@cache
def _listed() -> tuple[ORMOption, ...]:
    # A list of emails shows their subjects. Made when it is used: it costs the import 15 ms.
    mail = selectinload(Message.mail)
    return mail.selectinload(Mail.recipients), mail.selectinload(Mail.attachments)


def _leads(channel: str | None, status: str | None, destination: str | None) -> list[ColumnElement[bool]]:
    """Return the filter whose index is walked, the narrowest first; none if there is none."""
    if status is not None and status not in STATUSES:
        raise InvalidQuery({"status": [f"must be one of {', '.join(sorted(STATUSES))}"]})
    if destination is not None:
        return _is_for(channel, destination)
    return [] if status is None else [Message.status == status]


def _times(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    found = []
    if since is not None:
        found.append(Message.created_at >= _aware("since", since))
    if until is not None:
        found.append(Message.created_at < _aware("until", until))
    return found


def _unindexed(column: Any, nothing: Any = "") -> ColumnElement[Any]:
    # SQLite knows nothing of the values, and would walk this column's index as soon as a better one.
    return func.coalesce(column, nothing)


def _newest(
    leads: Sequence[ColumnElement[bool]], rest: Sequence[ColumnElement[bool]], number: int
) -> Select[Any]:
    """Choose the newest ids of each lead, and of these the newest: every one walks an index in order.

    Without a filter every status leads: SQLite would else sort all messages of the channel.
    """
    each = [
        select(
            select(Message.id).where(*lead, *rest).order_by(Message.id.desc()).limit(number).subquery().c.id
        )
        for lead in ([[one] for one in leads] or [[]])
    ]
    return each[0] if len(each) == 1 else select(union_all(*each).subquery().c.id)


def _is_for(channel: str | None, destination: str) -> list[ColumnElement[bool]]:
    first = Message.destination == destination
    if channel == "sms" or "@" not in destination:
        return [first]
    named = select(Recipient.message_id).where(Recipient.address == destination)
    return [first, Message.id.in_(named)]


def _aware(name: str, moment: datetime) -> datetime:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidQuery({name: ["must be a datetime with a time zone"]})
    return moment


def _limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_A_PAGE:
        raise InvalidQuery({"limit": [f"must be a whole number from 1 to {MOST_A_PAGE}"]})
    return limit


def cursor(after: str) -> int:
    """Return the id at which the page before ended; raise :class:`InvalidQuery` for anything else."""
    text = str(after)
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidQuery({"after": ["must be the `next` of an earlier page"]})
    return int(text)


def _configs(channel: str | None, key: str) -> Select[Any]:
    # Deleted ones too: their messages are still there.
    named = Config.key == key
    if key.isascii() and key.isdigit() and len(key) < 10:
        named |= Config.id == int(key)
    wanted = select(Config.id).where(named)
    return wanted if channel is None else wanted.where(Config.type == channel)
