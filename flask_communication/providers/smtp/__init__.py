"""The provider for any mail server: SMTP to send, IMAP to read."""

from .provider import SMTP

__all__ = ["SMTP"]
