"""The tables as SQLAlchemy models. Each column is explained here, and only here."""

from .base import Base
from .config import Circuit, Config
from .email import Attachment, Mail, Mailbox, Recipient, StoredFile
from .message import (
    ANY_PRIORITY,
    BULK,
    CHANNELS,
    HIGH,
    NORMAL,
    PRIORITIES,
    Attempt,
    Event,
    Message,
    Outcome,
)
from .operation import Heartbeat, Suppression, Token, Usage

__all__ = [
    "ANY_PRIORITY",
    "BULK",
    "CHANNELS",
    "HIGH",
    "NORMAL",
    "PRIORITIES",
    "Attachment",
    "Attempt",
    "Base",
    "Circuit",
    "Config",
    "Event",
    "Heartbeat",
    "Mail",
    "Mailbox",
    "Message",
    "Outcome",
    "Recipient",
    "StoredFile",
    "Suppression",
    "Token",
    "Usage",
]
