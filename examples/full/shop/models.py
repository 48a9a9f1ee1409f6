"""The shop's own tables."""

from __future__ import annotations

from datetime import datetime

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """What the shop's models have in common."""


db = SQLAlchemy(model_class=Base)


class User(db.Model):
    """Somebody who may log in; ``role`` is customer, operator or admin."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(20), default="customer")
    phone: Mapped[str | None] = mapped_column(String(20))


class Order(db.Model):
    """What a customer ordered, and the SMS that says so."""

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    item: Mapped[str] = mapped_column(String(200))
    sms_uuid: Mapped[str | None] = mapped_column(String(36), index=True)
    notified_at: Mapped[datetime | None] = mapped_column()
    user: Mapped[User] = relationship()
