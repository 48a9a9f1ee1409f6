"""Queries for messages: one message with all that belongs to it, or a page of messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, tuple_, union
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from ..errors import FileNotFound, InvalidQuery, MessageNotFound
from ..formats import numbers
from ..formats.files import File
from .database import Database
from .models import CHANNELS, Attachment, Config, Mail, Message, Recipient
from .models.base import UTCDateTime
from .models.status import STATUSES

# Messages of one page.
MOST_A_PAGE = 500
# The id orders messages of the same time.
_ORDER = (Message.created_at.desc(), Message.id.desc())

Condition = ColumnElement[bool]
# Conditions on the first columns of an index. Its next columns are those of the order.
Lead = list[Condition]


class Page(NamedTuple):
    """Messages, newest first. ``next`` is the cursor of the next page, or None at the end.

    Pass the cursor as ``after``.
    """

    items: list[Message]
    next: str | None


def get(database: Database, channel: str | None, uuid: str) -> Message:
    """Return one message with its attempts and events; raise :class:`MessageNotFound`."""
    wanted = select(Message).where(Message.uuid == str(uuid))
    if channel is not None:
        wanted = wanted.where(Message.channel == channel)
    with database.session() as session:
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


def file(database: Database, uuid: str, place: int) -> File:
    """Return one of an email's files; raise :class:`MessageNotFound` or :class:`FileNotFound`."""
    wanted = (
        select(Attachment)
        .join(Message, Message.id == Attachment.message_id)
        .where(Message.uuid == str(uuid), Attachment.place == place)
        .options(selectinload(Attachment.file))
    )
    with database.session() as session:
        found = session.scalar(wanted)
    if found is None:
        get(database, "email", uuid)
        raise FileNotFound(f"email {uuid} has no file {place}")
    return File(found.filename, found.content_type, bytes(found.file.content), found.content_id)


def statuses(database: Database, channel: str, uuids: Sequence[str]) -> dict[str, str]:
    """Return the statuses of those messages that exist: uuid -> status."""
    if not uuids:
        return {}
    wanted = select(Message.uuid, Message.status).where(
        Message.channel == channel, Message.uuid.in_(list(uuids))
    )
    with database.read() as connection:
        return {row.uuid: row.status for row in connection.execute(wanted)}


def page(
    database: Database,
    channel: str | None = None,
    *,
    status: str | None = None,
    destination: str | None = None,
    key: str | int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
    limit: int = 50,
    thread: str | None = None,
    region: str | None = None,
    channels: Iterable[str] = CHANNELS,
) -> Page:
    """Return a page of messages; see :class:`Page`. ``since`` is inclusive, ``until`` is not.

    ``thread`` is the uuid of any email of a conversation. ``region`` is where a ``destination``
    without ``+`` belongs; ``channels`` are those of the application. Raises :class:`InvalidQuery`
    that names the filter.
    """
    known = tuple(dict.fromkeys((*CHANNELS, *channels)))
    if channel is not None and channel not in known:
        raise InvalidQuery({"channel": [f"must be one of {', '.join(known)}"]})
    number = _limit(limit) + 1  # one more shows whether there is a next page
    rest = _period(since, until, after)
    with database.session() as session:
        configs = None if key is None else session.scalars(_configs(channel, str(key))).all()
        if configs is not None and not configs:
            raise InvalidQuery(
                {"key": [f"no configuration has, or had, the key or id {str(key)!r}"]}
            )
        people = None if destination is None else _people(session, destination, region)
        searched = channels if channel is None else (channel,)
        leads = _leads(searched, people, configs, _status(status))
        if thread is not None:
            rest += _any_of(leads) if destination is not None else []
            leads = _of_thread(session, thread) if channel in (None, "email") else []
        if destination is not None or thread is not None:
            rest += _unindexed(configs, status)
        found = (
            list(session.scalars(_newest(leads, rest, number).options(*_listed()))) if leads else []
        )
    items = found[:limit]
    return Page(items, _cursor_of(items[-1]) if len(found) > limit else None)


@cache
def _listed() -> tuple[ORMOption, ...]:
    # A list shows subjects and recipients. Made at its first use: at import it would take 15 ms.
    mail = selectinload(Message.mail)
    return mail.selectinload(Mail.recipients), mail.selectinload(Mail.attachments)


def _people(session: Session, destination: str, region: str | None) -> list[str]:
    if not isinstance(destination, str):
        raise InvalidQuery({"destination": ["must be a number or an address"]})
    return stored_spellings(session.connection(), destination, region)


def stored_spellings(connection: Connection, raw: str, region: str | None = None) -> list[str]:
    """Return how messages store a recipient that a person names, the likeliest first.

    An address is found however it is capitalised.
    """
    forms = numbers.candidates(raw, region)
    if "@" not in forms[0]:
        return forms
    same = func.lower(Recipient.address) == func.lower(forms[0])
    # The first recipient of an email, which the message itself names, is among them.
    found = connection.scalars(select(Recipient.address).distinct().where(same))
    return list(dict.fromkeys((*forms, *found)))


def _leads(
    channels: Iterable[str],
    people: Sequence[str] | None,
    configs: Sequence[int] | None,
    statuses: Iterable[str],
) -> list[Lead]:
    """Return the first conditions of each index to read.

    They are on a recipient, else on a configuration and a status, else on a status.
    """
    if people is not None:
        leads = _for_recipient(people)
    elif configs is not None:
        leads = [
            [Message.config_id == one, Message.status == each]
            for one in configs
            for each in statuses
        ]
    else:
        leads = [[Message.status == each] for each in statuses]
    return [[Message.channel == one, *lead] for one in channels for lead in leads]


def _status(status: str | None) -> Iterable[str]:
    if status is None:
        return sorted(STATUSES)
    if status not in STATUSES:
        raise InvalidQuery({"status": [f"must be one of {', '.join(sorted(STATUSES))}"]})
    return [status]


def _period(since: datetime | None, until: datetime | None, after: str | None) -> list[Condition]:
    found: list[Condition] = []
    if since is not None:
        found.append(Message.created_at >= _aware("since", since))
    end = _aware("until", until) if until is not None else None
    if after is not None:
        moment, number = _cursor(after)
        if end is None or moment < end:
            # The cursor implies `until`. Of two upper bounds SQLite may start at the wrong one.
            last = tuple_(literal(moment, UTCDateTime), literal(number))
            return [*found, tuple_(Message.created_at, Message.id) < last]
    return found if end is None else [*found, Message.created_at < end]


def _unindexed(configs: Sequence[int] | None, status: str | None) -> list[Condition]:
    # coalesce() keeps SQLite from using the indexes on these columns: it does not know how many
    # rows have the value, and the recipient's index is better.
    found: list[Condition] = []
    if configs is not None:
        found.append(func.coalesce(Message.config_id, 0).in_(configs))
    if status is not None:
        found.append(func.coalesce(Message.status, "") == status)
    return found


def _newest(leads: Sequence[Lead], rest: Sequence[Condition], number: int) -> Select[Any]:
    """Select the newest messages of each lead, then the newest of these; each lead is one index."""
    if len(leads) == 1:
        return select(Message).where(*leads[0], *rest).order_by(*_ORDER).limit(number)
    each = [
        select(Message.id, Message.created_at)
        .where(*lead, *rest)
        .order_by(*_ORDER)
        .limit(number)
        .subquery()
        for lead in leads
    ]
    # UNION, because an email may be found twice: as its first recipient, and as any recipient.
    of_all = union(*(select(one.c.id, one.c.created_at) for one in each)).subquery()
    newest = (
        select(of_all.c.id).order_by(of_all.c.created_at.desc(), of_all.c.id.desc()).limit(number)
    )
    return select(Message).where(Message.id.in_(newest)).order_by(*_ORDER)


def _for_recipient(people: Sequence[str]) -> list[Lead]:
    first: list[Lead] = [[Message.destination == one] for one in people]
    if "@" not in people[0]:
        return first
    named = select(Recipient.message_id).where(Recipient.address.in_(people))
    return [*first, [Message.id.in_(named)]]


def _any_of(leads: Sequence[Lead]) -> list[Condition]:
    return [or_(*(and_(*lead) for lead in leads))]


def _of_thread(session: Session, uuid: str) -> list[Lead]:
    """Return the leads of a conversation: its first email, and the others."""
    wanted = select(func.coalesce(Mail.thread_id, Mail.message_id))
    root = session.scalar(
        wanted.join(Message, Message.id == Mail.message_id).where(Message.uuid == str(uuid))
    )
    if root is None:
        raise InvalidQuery({"thread": ["must be the uuid of an email"]})
    others = select(Mail.message_id).where(Mail.thread_id == root)
    return [[Message.id == root], [Message.id.in_(others)]]


def _aware(name: str, moment: datetime) -> datetime:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidQuery({name: ["must be a datetime with a time zone"]})
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidQuery({name: ["is before the year 1, or after 9999, in UTC"]}) from None


def _limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_A_PAGE:
        raise InvalidQuery({"limit": [f"must be a whole number from 1 to {MOST_A_PAGE}"]})
    return limit


def _cursor_of(last: Message) -> str:
    return f"{last.created_at:%Y%m%d%H%M%S%f}-{last.id}"


def _cursor(after: str) -> tuple[datetime, int]:
    """Return the time and the id of a cursor; raise :class:`InvalidQuery`."""
    moment, _, number = str(after).partition("-")
    try:
        if len(moment) != 20 or not (number.isascii() and number.isdigit() and len(number) < 19):
            raise ValueError(after)
        return datetime.strptime(moment, "%Y%m%d%H%M%S%f").replace(tzinfo=UTC), int(number)
    except ValueError:
        raise InvalidQuery({"after": ["must be the `next` of an earlier page"]}) from None


def _configs(channel: str | None, key: str) -> Select[Any]:
    # Deleted configurations too: their messages still exist.
    named = Config.key == key
    if key.isascii() and key.isdigit() and len(key) < 10:
        named |= Config.id == int(key)
    wanted = select(Config.id).where(named)
    return wanted if channel is None else wanted.where(Config.type == channel)
