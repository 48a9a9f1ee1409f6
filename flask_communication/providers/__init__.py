"""The kit for authors of providers: what a provider is, and an HTTP client to reach a vendor."""

from .base import (
    Accepted,
    Capabilities,
    Denied,
    File,
    InboundEmail,
    Inbox,
    NotSent,
    OutboundEmail,
    OutboundSMS,
    OutcomeUnknown,
    Provider,
    ProviderError,
    Refused,
    Report,
    ReportStatus,
)
from .http import Http, Reply, basic_auth, classify, retry_after
from .net.hosts import guarded, unguarded

__all__ = [
    "Accepted",
    "Capabilities",
    "Denied",
    "File",
    "Http",
    "InboundEmail",
    "Inbox",
    "NotSent",
    "OutboundEmail",
    "OutboundSMS",
    "OutcomeUnknown",
    "Provider",
    "ProviderError",
    "Refused",
    "Reply",
    "Report",
    "ReportStatus",
    "basic_auth",
    "classify",
    "guarded",
    "retry_after",
    "unguarded",
]
