"""The tables of a message: the row itself, its attempts and its events."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .base import Base, BigId, UTCDateTime
from .config import Config
from .email import Mail

CHANNELS = ("sms", "email", "telephony")

HIGH, NORMAL, BULK = 0, 5, 9
PRIORITIES = {"high": HIGH, "normal": NORMAL, "bulk": BULK}
# A condition that is always true. It lets both databases walk the index on
# (status, priority, due_at) one priority at a time.
ANY_PRIORITY = f"priority IN ({', '.join(map(str, PRIORITIES.values()))})"


class Outcome(NamedTuple):
    """The outcome of an email for one of its recipients."""

    address: str
    kind: str
    status: str
    error: str | None
    error_code: str | None


class Message(Base):
    """One message to, or from, one recipient. The row is also the queue's entry."""

    __tablename__ = "communication_message"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    channel: Mapped[str] = mapped_column(String(10))
    # "out" or "in".
    direction: Mapped[str] = mapped_column(String(3), server_default="out")
    # See models.status.
    status: Mapped[str] = mapped_column(String(12))
    destination: Mapped[str] = mapped_column(String(320))
    sender: Mapped[str | None] = mapped_column(String(320))
    body: Mapped[str] = mapped_column(Text)
    # The configuration that sends it, or sent it.
    config_id: Mapped[int | None] = mapped_column(ForeignKey("communication_config.id"))
    # The configuration that was asked for. Its fallbacks may send instead.
    route_id: Mapped[int | None] = mapped_column(Integer)
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=str(NORMAL))
    # When this row next needs attention; NULL when it needs none.
    due_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # Counts claims. A worker may settle only with the number that its claim returned.
    fence: Mapped[int] = mapped_column(Integer, server_default="0")
    # Requests to providers so far, and leases that ran out during one.
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    crashes: Mapped[int] = mapped_column(Integer, server_default="0")
    # How often a person sent it again. Each time the provider gets a new idempotency key.
    resends: Mapped[int] = mapped_column(Integer, server_default="0")
    first_tried_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # When the limits, or a person who released it, let it pass. It is not counted again.
    admitted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # Set while an earlier try is in doubt and may be repeated: until then the provider ignores
    # repeats of the same key.
    repeat_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_hash: Mapped[str | None] = mapped_column(String(64))
    # The provider's own id of the message, and what else it answered.
    provider_ref: Mapped[str | None] = mapped_column(String(255))
    extra: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    meta: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    # Why it has this status, for a person.
    error: Mapped[str | None] = mapped_column(String(500))
    error_code: Mapped[str | None] = mapped_column(String(50))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    attempts: Mapped[list[Attempt]] = relationship(order_by="Attempt.fence", viewonly=True)
    events: Mapped[list[Event]] = relationship(order_by="Event.id", viewonly=True)
    mail: Mapped[Mail | None] = relationship(viewonly=True)
    config: Mapped[Config | None] = relationship(viewonly=True)

    __table_args__ = (
        # For pages, newest first.
        Index("ix_communication_message_status", "channel", "status", "created_at", "id"),
        Index("ix_communication_message_destination", "channel", "destination", "created_at", "id"),
        Index(
            "ix_communication_message_config", "channel", "config_id", "status", "created_at", "id"
        ),
    )

    @property
    def recipients(self) -> list[Outcome]:
        """The recipients of an email, each with its outcome; empty on other channels."""
        people = self.mail.recipients if self.mail else []
        return [
            Outcome(one.address, one.kind, one.status or self.status, one.error, one.error_code)
            for one in people
        ]

    @property
    def msg(self) -> str:
        """The text; ``msg`` is its name in the HTTP contract."""
        return self.body

    def __repr__(self) -> str:
        return f"<Message {self.uuid} {self.channel} {self.status}>"


class Attempt(Base):
    """One request to a provider. The row is committed before the request is made."""

    __tablename__ = "communication_attempt"

    message_id: Mapped[int] = mapped_column(
        ForeignKey("communication_message.id", ondelete="CASCADE"), primary_key=True
    )
    fence: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    config_id: Mapped[int | None] = mapped_column(ForeignKey("communication_config.id"))
    # The idempotency key of the request.
    key: Mapped[str] = mapped_column(String(60))
    # One of models.status.ATTEMPTS.
    state: Mapped[str] = mapped_column(String(10))
    started_at: Mapped[datetime] = mapped_column(UTCDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    http_status: Mapped[int | None] = mapped_column(SmallInteger)
    provider_ref: Mapped[str | None] = mapped_column(String(255))
    error: Mapped[str | None] = mapped_column(String(500))
    error_code: Mapped[str | None] = mapped_column(String(50))

    def __repr__(self) -> str:
        return f"<Attempt {self.message_id}#{self.fence} {self.state}>"


class Event(Base):
    """An entry in a message's timeline: a provider's report, or a person's action."""

    __tablename__ = "communication_event"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    message_id: Mapped[int | None] = mapped_column(
        ForeignKey("communication_message.id", ondelete="CASCADE"), index=True
    )
    config_id: Mapped[int | None] = mapped_column(ForeignKey("communication_config.id"))
    kind: Mapped[str] = mapped_column(String(20))
    status: Mapped[str | None] = mapped_column(String(12))
    provider_ref: Mapped[str | None] = mapped_column(String(255))
    # The same report has the same key, and is stored once.
    dedupe_key: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(String(500))
    code: Mapped[str | None] = mapped_column(String(50))
    occurred_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    received_at: Mapped[datetime] = mapped_column(UTCDateTime)
    # Whether it changed the message. A report of a lower rank is stored and changes nothing.
    applied: Mapped[bool] = mapped_column(Boolean, default=False)

    __table_args__ = (UniqueConstraint("dedupe_key"),)

    def __repr__(self) -> str:
        return f"<Event {self.id} {self.kind} {self.status}>"
