"""The tables of an email: its headers, recipients and files, and the mailboxes that are read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .base import Base, BigId, UTCDateTime


class Mail(Base):
    """The email of a message, outgoing or incoming."""

    __tablename__ = "communication_mail"

    message_id: Mapped[int] = mapped_column(
        ForeignKey("communication_message.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    # The Message-ID (RFC 5322 §3.6.4) with its angle brackets.
    rfc_message_id: Mapped[str | None] = mapped_column(String(998))
    subject: Mapped[str] = mapped_column(String(998))
    html: Mapped[str | None] = mapped_column(Text)
    # Mailboxes by header (from, to, cc, bcc, reply_to), each as the header shows it.
    mailboxes: Mapped[dict[str, list[str]]] = mapped_column(JSON)
    headers: Mapped[dict[str, str]] = mapped_column(JSON)
    in_reply_to: Mapped[str | None] = mapped_column(String(998))
    refs: Mapped[list[str]] = mapped_column(JSON)
    # The first message of the conversation; NULL for the first message itself.
    thread_id: Mapped[int | None] = mapped_column(BigId)
    # Of an incoming mail: its bytes, what could not be read, and a fingerprint. A mail that arrives
    # twice has the same fingerprint and is stored once.
    raw_sha256: Mapped[str | None] = mapped_column(ForeignKey("communication_file.sha256"))
    problem: Mapped[str | None] = mapped_column(String(500))
    arrival: Mapped[str | None] = mapped_column(String(64))

    recipients: Mapped[list[Recipient]] = relationship(order_by="Recipient.place", viewonly=True)
    attachments: Mapped[list[Attachment]] = relationship(order_by="Attachment.place", viewonly=True)

    def __repr__(self) -> str:
        return f"<Mail {self.message_id} {self.subject!r}>"


class Recipient(Base):
    """One recipient of an email, and the outcome for this recipient."""

    __tablename__ = "communication_recipient"

    message_id: Mapped[int] = mapped_column(
        ForeignKey("communication_mail.message_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    # The bare address.
    address: Mapped[str] = mapped_column(String(320), primary_key=True)
    # to, cc or bcc, and its position among all recipients.
    kind: Mapped[str] = mapped_column(String(3))
    place: Mapped[int] = mapped_column(Integer)
    # NULL while it is the message's status.
    status: Mapped[str | None] = mapped_column(String(12))
    error: Mapped[str | None] = mapped_column(String(500))
    error_code: Mapped[str | None] = mapped_column(String(50))

    __table_args__ = (Index("ix_communication_recipient_address", "address", "message_id"),)

    def __repr__(self) -> str:
        return f"<Recipient {self.message_id} {self.kind} {self.status}>"


class StoredFile(Base):
    """The content of a file, stored once for all messages that carry it."""

    __tablename__ = "communication_file"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(Integer)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    def __repr__(self) -> str:
        return f"<StoredFile {self.sha256[:12]} {self.size} bytes>"


class Attachment(Base):
    """A file in one email: its name, its type and where its content is stored."""

    __tablename__ = "communication_attachment"

    message_id: Mapped[int] = mapped_column(
        ForeignKey("communication_mail.message_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    place: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    sha256: Mapped[str] = mapped_column(ForeignKey("communication_file.sha256"), index=True)
    # The name that the sender gave. No file is written under this name.
    filename: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(127))
    # Set for a file that the HTML shows inline (cid:).
    content_id: Mapped[str | None] = mapped_column(String(255))

    file: Mapped[StoredFile] = relationship(viewonly=True)

    def __repr__(self) -> str:
        return f"<Attachment {self.message_id}/{self.place} {self.filename!r}>"


class Mailbox(Base):
    """The mailbox of a configuration, and how far it has been read."""

    __tablename__ = "communication_mailbox"

    config_id: Mapped[int] = mapped_column(
        ForeignKey("communication_config.id"), primary_key=True, autoincrement=False
    )
    # The provider's own cursor, for the next time.
    cursor: Mapped[dict[str, Any]] = mapped_column(JSON)
    # When to read it next; while `reading`, the end of the reader's lease.
    due_at: Mapped[datetime] = mapped_column(UTCDateTime)
    reading: Mapped[bool] = mapped_column(Boolean)
    synced_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    error: Mapped[str | None] = mapped_column(String(500))

    def __repr__(self) -> str:
        return f"<Mailbox {self.config_id}>"
