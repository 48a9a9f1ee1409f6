"""What the shop keeps."""

from __future__ import annotations

from typing import Any

from flask import Flask
from sqlalchemy.orm import Mapped, mapped_column

from . import db


class User(db.Model):  # type: ignore[name-defined,misc]
    """Somebody who may log in."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(db.String(50), unique=True)
    password: Mapped[str] = mapped_column(db.String(200))
    is_staff: Mapped[bool] = mapped_column(default=False)


class Order(db.Model):  # type: ignore[name-defined,misc]
    """Something that was bought."""

    id: Mapped[int] = mapped_column(primary_key=True)
    phone: Mapped[str] = mapped_column(db.String(20))
    sms: Mapped[str | None] = mapped_column(db.String(36), index=True)
    notified: Mapped[bool] = mapped_column(default=False)


def order_was_notified(app: Flask, message_uuid: str, **told: Any) -> None:
    """Note on the order that its SMS has arrived."""
    db.session.execute(db.update(Order).where(Order.sms == message_uuid).values(notified=True))
    db.session.commit()
