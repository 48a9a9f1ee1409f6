"""Email: write, send and follow it, and read the inbox."""

from .api import Email

__all__ = ["Email"]
