"""Our tables. What a column means is said once, here."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .base import Base, UTCDateTime
from .email import Attachment, Mail, Mailbox, Recipient, StoredFile

__all__ = [
    "CHANNELS",
    "Attachment",
    "Attempt",
    "Circuit",
    "Config",
    "Event",
    "Heartbeat",
    "Mail",
    "Mailbox",
    "Message",
    "Recipient",
    "StoredFile",
    "Suppression",
    "Token",
    "Usage",
]

# The ways to reach people, as configurations and messages name them.
CHANNELS = ("sms", "email", "telephony")

# SQLite numbers rows by itself only in a column of type INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")

HIGH, NORMAL, BULK = 0, 5, 9
PRIORITIES = {"high": HIGH, "normal": NORMAL, "bulk": BULK}


class Config(Base):
    """One way to reach people: which provider, with which settings."""

    __tablename__ = "communication_config"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    type: Mapped[str] = mapped_column(String(20))
    provider: Mapped[str] = mapped_column(String(100), default="")
    provider_pkg_name: Mapped[str] = mapped_column(String(200), default="")
    key: Mapped[str | None] = mapped_column(String(100))
    # What the operator typed: JSON, encrypted as soon as it holds a secret (see configs.py).
    sealed: Mapped[str] = mapped_column(Text, default="{}")
    is_default: Mapped[bool] = mapped_column(Boolean, default=False)
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    fallback: Mapped[list[str]] = mapped_column(JSON, default=list)
    weight: Mapped[int] = mapped_column(Integer, default=100)
    rate_per_second: Mapped[float | None] = mapped_column(Float)
    # Counts updates, so that a worker sees a change and two operators see each other's.
    version: Mapped[int] = mapped_column(Integer, default=1)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)
    # Deleting hides a config; its messages still ask it for delivery reports.
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    def __repr__(self) -> str:
        return f"<Config {self.id} {self.type} {self.provider or self.provider_pkg_name!r}>"


class Outcome(NamedTuple):
    """One recipient of an email, and what became of it for them."""

    address: str
    kind: str
    status: str
    error: str | None
    error_code: str | None


class Message(Base):
    """One message to, or from, one recipient. The row is the queue."""

    __tablename__ = "communication_message"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    channel: Mapped[str] = mapped_column(String(10))
    direction: Mapped[str] = mapped_column(String(3), server_default="out")
    status: Mapped[str] = mapped_column(String(12))
    destination: Mapped[str] = mapped_column(String(320))
    sender: Mapped[str | None] = mapped_column(String(320))
    body: Mapped[str] = mapped_column(Text)
    # By which it goes, or went.
    config_id: Mapped[int | None] = mapped_column(ForeignKey("communication_config.id"))
    # Which was asked for; its fallbacks may send in its place.
    route_id: Mapped[int | None] = mapped_column(Integer)
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=str(NORMAL))
    # The moment this row next needs somebody's attention; NULL when it needs none.
    due_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # Counts claims. Who settles must hold the number that its claim gave it.
    fence: Mapped[int] = mapped_column(Integer, server_default="0")
    # Calls made so far, and leases that ran out during one.
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    crashes: Mapped[int] = mapped_column(Integer, server_default="0")
    # How often a person chose to send again; each time the provider gets a new key.
    resends: Mapped[int] = mapped_column(Integer, server_default="0")
    first_tried_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # When the limits, or a person who released it, let it pass: it is not counted again.
    admitted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # Set while an earlier try is in doubt and may be repeated, because the provider ignores repeats
    # of the same key until then.
    repeat_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_hash: Mapped[str | None] = mapped_column(String(64))
    # The provider's own id of the message, and what else it answered.
    provider_ref: Mapped[str | None] = mapped_column(String(255))
    extra: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    meta: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    # Why it stands where it stands, for a person.
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
        # Pages, newest first.
        Index("ix_communication_message_status", "channel", "status", "created_at", "id"),
        Index("ix_communication_message_destination", "channel", "destination", "created_at", "id"),
        Index(
            "ix_communication_message_config", "channel", "config_id", "status", "created_at", "id"
        ),
    )

    @property
    def recipients(self) -> list[Outcome]:
        """Who an email went to, and what became of it for each."""
        people = self.mail.recipients if self.mail else []
        return [
            Outcome(one.address, one.kind, one.status or self.status, one.error, one.error_code)
            for one in people
        ]

    @property
    def msg(self) -> str:
        """The text, under the name the seed gives it."""
        return self.body

    def __repr__(self) -> str:
        return f"<Message {self.uuid} {self.channel} {self.status}>"


class Attempt(Base):
    """One call to a provider, written and committed before the call is made."""

    __tablename__ = "communication_attempt"

    message_id: Mapped[int] = mapped_column(
        ForeignKey("communication_message.id", ondelete="CASCADE"), primary_key=True
    )
    fence: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    config_id: Mapped[int | None] = mapped_column(ForeignKey("communication_config.id"))
    # The idempotency key that went with the call.
    key: Mapped[str] = mapped_column(String(60))
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
    """Something that was said of a message: a provider's report, or a person's decision."""

    __tablename__ = "communication_event"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    message_id: Mapped[int | None] = mapped_column(
        ForeignKey("communication_message.id", ondelete="CASCADE"), index=True
    )
    config_id: Mapped[int | None] = mapped_column(ForeignKey("communication_config.id"))
    kind: Mapped[str] = mapped_column(String(20))
    status: Mapped[str | None] = mapped_column(String(12))
    provider_ref: Mapped[str | None] = mapped_column(String(255))
    # The same report told twice has the same key, and is stored once.
    dedupe_key: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(String(500))
    code: Mapped[str | None] = mapped_column(String(50))
    occurred_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    received_at: Mapped[datetime] = mapped_column(UTCDateTime)
    # Whether it moved the message; a report of lower rank is kept and changes nothing.
    applied: Mapped[bool] = mapped_column(Boolean, default=False)

    __table_args__ = (UniqueConstraint("dedupe_key"),)

    def __repr__(self) -> str:
        return f"<Event {self.id} {self.kind} {self.status}>"


class Circuit(Base):
    """What the workers have learnt about a configuration, and share: is it well, how fast may it go."""

    __tablename__ = "communication_circuit"

    config_id: Mapped[int] = mapped_column(
        ForeignKey("communication_config.id"), primary_key=True, autoincrement=False
    )
    # closed: all is well, or will be at ``until``. open: nothing is sent until ``until``, then one
    # probe. stopped: nothing is sent until somebody changes the configuration.
    state: Mapped[str] = mapped_column(String(8), server_default="closed")
    # Failures in a row, and openings in a row.
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    opens: Mapped[int] = mapped_column(Integer, server_default="0")
    until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    reason: Mapped[str | None] = mapped_column(String(500))
    changed_at: Mapped[datetime] = mapped_column(UTCDateTime)
    # The token bucket: when it will be, or was, full; and until when its queue reaches.
    full_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    queued_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # What all workers have counted in a minute that began with a failure.
    counted_since: Mapped[datetime | None] = mapped_column(UTCDateTime)
    counted_ok: Mapped[int] = mapped_column(Integer, server_default="0")
    counted_failed: Mapped[int] = mapped_column(Integer, server_default="0")

    def __repr__(self) -> str:
        return f"<Circuit {self.config_id} {self.state}>"


class Usage(Base):
    """How many messages a limit has counted in one period of its length."""

    __tablename__ = "communication_usage"

    # What is counted: a recipient, a prefix of numbers, a channel's day. Recipients are hashed.
    scope: Mapped[str] = mapped_column(String(80), primary_key=True)
    # The number of the period since 1970: seconds divided by the limit's length.
    period: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    count: Mapped[int] = mapped_column(Integer)
    # Whether somebody has been told that the limit was reached.
    alerted: Mapped[bool] = mapped_column(Boolean)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)

    def __repr__(self) -> str:
        return f"<Usage {self.scope} {self.period}: {self.count}>"


class Suppression(Base):
    """A recipient that must not be written to."""

    __tablename__ = "communication_suppression"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    channel: Mapped[str] = mapped_column(String(10))
    destination: Mapped[str] = mapped_column(String(320))
    # From whom: "" for anybody, "sender:…" or "config:…" for one.
    scope: Mapped[str] = mapped_column(String(330), server_default="")
    # Why: stop, opted_out, bounce, complaint or manual.
    reason: Mapped[str] = mapped_column(String(20))
    detail: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("channel", "destination", "scope"),)

    def __repr__(self) -> str:
        return f"<Suppression {self.id} {self.channel} {self.reason}>"


class Heartbeat(Base):
    """A process that attends to messages, and when it was last seen."""

    __tablename__ = "communication_heartbeat"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    started_at: Mapped[datetime] = mapped_column(UTCDateTime)
    seen_at: Mapped[datetime] = mapped_column(UTCDateTime)

    def __repr__(self) -> str:
        return f"<Heartbeat {self.host}:{self.pid}>"


class Token(Base):
    """A bearer token of a machine; only its hash is kept."""

    __tablename__ = "communication_token"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    # The part of the token that finds the row; not secret.
    public_id: Mapped[str] = mapped_column(String(16), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    def __repr__(self) -> str:
        return f"<Token {self.public_id} {self.name!r}>"
