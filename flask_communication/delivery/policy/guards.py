"""Guards of deployments that are not in production: to whom a message really goes."""

from __future__ import annotations

from collections.abc import Callable

from ...configs.settings import Settings


def recipient(
    destination: str, settings: Settings, is_recipient: Callable[[str], bool]
) -> str | None:
    """Return the recipient that COMMUNICATION_REDIRECT_TO and COMMUNICATION_ONLY_TO leave.

    None: the message goes to nobody. ``is_recipient`` tells whether the channel can write to what
    COMMUNICATION_REDIRECT_TO names: an email cannot go to a telephone, nor an SMS to a mailbox.
    """
    if settings.redirect_to is not None:
        return settings.redirect_to if is_recipient(settings.redirect_to) else None
    if settings.only_to and not {destination, _domain(destination)} & set(settings.only_to):
        return None
    return destination


def _domain(destination: str) -> str:
    """Return ``@example.com`` of an email address."""
    return "".join(destination.rpartition("@")[1:])
