"""The tables of operation: counters of limits, suppressions, heartbeats and tokens."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import JSON, BigInteger, Boolean, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, UTCDateTime


class Usage(Base):
    """The number of messages that a limit has counted in one of its periods."""

    __tablename__ = "communication_usage"

    # What is counted: a recipient (hashed), a prefix of numbers, or a channel.
    scope: Mapped[str] = mapped_column(String(80), primary_key=True)
    # The number of the period since 1970: seconds divided by the length of a period.
    period: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    count: Mapped[int] = mapped_column(Integer)
    # Whether the signal `limit_reached` was sent in this period.
    alerted: Mapped[bool] = mapped_column(Boolean)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)

    def __repr__(self) -> str:
        return f"<Usage {self.scope} {self.period}: {self.count}>"


def hash_recipient(recipient: str) -> str:
    """Return the name of a recipient at the end of :attr:`Usage.scope`."""
    return hashlib.sha256(recipient.encode()).hexdigest()[:32]


class Suppression(Base):
    """A recipient that gets no more messages."""

    __tablename__ = "communication_suppression"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    channel: Mapped[str] = mapped_column(String(10))
    destination: Mapped[str] = mapped_column(String(320))
    # For which sender: "" for all, "sender:…" or "config:…" for one.
    scope: Mapped[str] = mapped_column(String(330), server_default="")
    # stop, opted_out, bounce, complaint or manual.
    reason: Mapped[str] = mapped_column(String(20))
    detail: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (UniqueConstraint("channel", "destination", "scope"),)

    def __repr__(self) -> str:
        return f"<Suppression {self.id} {self.channel} {self.reason}>"


class Heartbeat(Base):
    """A worker process, and when it last reported."""

    __tablename__ = "communication_heartbeat"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    started_at: Mapped[datetime] = mapped_column(UTCDateTime)
    seen_at: Mapped[datetime] = mapped_column(UTCDateTime)

    def __repr__(self) -> str:
        return f"<Heartbeat {self.host}:{self.pid}>"


class Token(Base):
    """A bearer token for machines. Only its hash is stored."""

    __tablename__ = "communication_token"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    # The part of the token that finds the row. It is no secret.
    public_id: Mapped[str] = mapped_column(String(16), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    def __repr__(self) -> str:
        return f"<Token {self.public_id} {self.name!r}>"
