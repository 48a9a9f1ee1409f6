"""Partial indexes: those with a WHERE condition.

They are declared here, not in the models, because SQLAlchemy loads the dialects of both databases
to read such a condition. This takes a fifth of this package's import time, and only migrations
need it.
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
    # Holds only open work, so that the history does not slow down a claim.
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
    # Others may take the key, and the place as the default, of a deleted configuration.
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
    # The same mail is stored once.
    Partial(
        "uq_communication_mail_arrival", "mail", ("arrival",), "arrival IS NOT NULL", unique=True
    ),
)


@cache
def whole_metadata() -> MetaData:
    """Return the tables with all indexes, for migrations.

    Until then ``Base.metadata`` lacks the partial ones.
    """
    for one in PARTIAL:
        table, where = Base.metadata.tables[f"communication_{one.table}"], text(one.where)
        columns = [table.c[name] for name in one.columns]
        Index(one.name, *columns, unique=one.unique, postgresql_where=where, sqlite_where=where)
    return Base.metadata
