"""SMS, email and telephony for any Flask app, through interchangeable providers."""

from .email import Email
from .errors import CommunicationError
from .extension import Communication
from .providers.base import Provider
from .sms import SMS

__all__ = ["SMS", "Communication", "CommunicationError", "Email", "Provider"]
