"""The REST interface, one module for each noun."""

from . import configs, email, health, messages, sms, suppressions

__all__ = ["configs", "email", "health", "messages", "sms", "suppressions"]
