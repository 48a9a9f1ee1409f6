"""The tables of a configuration: its settings, and the state of its circuit breaker."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, Boolean, Float, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, UTCDateTime


class Config(Base):
    """A configuration: one channel, one provider and the provider's settings."""

    __tablename__ = "communication_config"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    # The channel.
    type: Mapped[str] = mapped_column(String(20))
    provider: Mapped[str] = mapped_column(String(100), default="")
    provider_pkg_name: Mapped[str] = mapped_column(String(200), default="")
    key: Mapped[str | None] = mapped_column(String(100))
    # The provider's settings: JSON, encrypted if it holds a secret (see configs/encryption.py).
    sealed: Mapped[str] = mapped_column(Text, default="{}")
    is_default: Mapped[bool] = mapped_column(Boolean, default=False)
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    fallback: Mapped[list[str]] = mapped_column(JSON, default=list)
    weight: Mapped[int] = mapped_column(Integer, default=100)
    rate_per_second: Mapped[float | None] = mapped_column(Float)
    # Counts updates. Workers notice a change by it, and two operators do not overwrite each other.
    version: Mapped[int] = mapped_column(Integer, default=1)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime)
    # A deleted configuration is hidden and kept: its messages still need delivery reports.
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    def __repr__(self) -> str:
        return f"<Config {self.id} {self.type} {self.provider or self.provider_pkg_name!r}>"


class Circuit(Base):
    """The circuit breaker and the rate limiter of one configuration, shared by all workers."""

    __tablename__ = "communication_circuit"

    config_id: Mapped[int] = mapped_column(
        ForeignKey("communication_config.id"), primary_key=True, autoincrement=False
    )
    # "closed": messages are sent, or will be from `until` on.
    # "open": nothing is sent before `until`, then one probe.
    # "stopped": nothing is sent until an operator changes the configuration.
    state: Mapped[str] = mapped_column(String(8), server_default="closed")
    # Failures in a row, and openings in a row.
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    opens: Mapped[int] = mapped_column(Integer, server_default="0")
    until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    reason: Mapped[str | None] = mapped_column(String(500))
    changed_at: Mapped[datetime] = mapped_column(UTCDateTime)
    # The token bucket: when it is full, and until when its queue reaches.
    full_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    queued_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # What all workers counted in a minute that began with a failure.
    counted_since: Mapped[datetime | None] = mapped_column(UTCDateTime)
    counted_ok: Mapped[int] = mapped_column(Integer, server_default="0")
    counted_failed: Mapped[int] = mapped_column(Integer, server_default="0")

    def __repr__(self) -> str:
        return f"<Circuit {self.config_id} {self.state}>"
