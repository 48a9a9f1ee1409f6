"""SMS: send, receive and follow them."""

from .api import SMS

__all__ = ["SMS"]
