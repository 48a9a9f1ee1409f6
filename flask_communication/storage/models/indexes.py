"""Indexes of a part of a table: who is due, who is unique among those that have the value.

They stand apart from their tables because SQLAlchemy loads the dialects of both databases to read a
condition, a fifth of what importing this package costs, and only migrations want them.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from sqlalchemy import Index, MetaData, text

from .base import Base


class Partial(NamedTuple):
    """An index of the rows of ``communication_<table>`` for which ``where`` holds."""

    name: str
    table: str
    columns: tuple[str, ...]
    where: str
    unique: bool = False


PARTIAL = (
    # Holds open work only, so finding work never grows with the history.
    Partial(
        "ix_communication_message_due",
        "message",
        ("status", "priority", "due_at"),
        "due_at IS NOT NULL",
    ),
    Partial(
        "uq_communication_message_idempotency",
        "message",
        ("channel", "idempotency_key"),
        "idempotency_key IS NOT NULL",
        unique=True,
    ),
    Partial(
        "ix_communication_message_ref",
        "message",
        ("config_id", "provider_ref"),
        "provider_ref IS NOT NULL",
    ),
    # A deleted configuration leaves its key, and its place as the default, to others.
    Partial(
        "uq_communication_config_key",
        "config",
        ("type", "key"),
        "deleted_at IS NULL AND key IS NOT NULL",
        unique=True,
    ),
    Partial(
        "uq_communication_config_default",
        "config",
        ("type",),
        "deleted_at IS NULL AND is_default",
        unique=True,
    ),
    Partial(
        "ix_communication_mail_rfc_message_id",
        "mail",
        ("rfc_message_id",),
        "rfc_message_id IS NOT NULL",
    ),
    Partial("ix_communication_mail_thread_id", "mail", ("thread_id",), "thread_id IS NOT NULL"),
    Partial("ix_communication_mail_raw_sha256", "mail", ("raw_sha256",), "raw_sha256 IS NOT NULL"),
    # The same mail comes once.
    Partial(
        "uq_communication_mail_arrival", "mail", ("arrival",), "arrival IS NOT NULL", unique=True
    ),
)


@cache
def whole_metadata() -> MetaData:
    """Return our tables with all their indexes, for migrations.

    ``Base.metadata`` lacks the partial ones.
    """
    for one in PARTIAL:
        table, where = Base.metadata.tables[f"communication_{one.table}"], text(one.where)
        columns = [table.c[name] for name in one.columns]
        Index(one.name, *columns, unique=one.unique, postgresql_where=where, sqlite_where=where)
    return Base.metadata
