"""A hush: while a test keeps one, nothing leaves this process.

Workers rest, nobody is rung for, and providers have stand-ins. The fixture of ``testing`` keeps it;
the rooms that would send ask here first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from .base import Provider

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from ..configs.state import State


class Keeper(Protocol):
    """Who keeps the hush, and is told what would have been sent."""

    def before_accept(
        self, connection: Connection, channel: str, keys: Collection[str | int | None]
    ) -> None:
        """Prepare for messages that are about to be accepted in this transaction.

        ``keys`` name their configurations; None is the default one.
        """

    def accepted(self, state: State, uuids: Sequence[str], session: Any) -> None:
        """Hear of messages that are new, or sent again.

        With ``session`` they stand or fall with it.
        """

    def in_place_of(self, provider: Provider) -> Provider:
        """Return the stand-in of a provider."""


_keepers: list[Keeper] = []


@contextmanager
def kept(keeper: Keeper) -> Iterator[None]:
    """Keep the hush for a while; within another, the inner keeper is the one that is told."""
    _keepers.append(keeper)
    try:
        yield
    finally:
        _keepers.remove(keeper)


def is_kept() -> bool:
    """Tell whether there is a hush."""
    return bool(_keepers)


def before_accept(connection: Connection, channel: str, keys: Collection[str | int | None]) -> None:
    """Tell the keeper, if there is one, that messages are about to be accepted."""
    if _keepers:
        _keepers[-1].before_accept(connection, channel, keys)


def accepted(state: State, uuids: Sequence[str], session: Any) -> None:
    """Tell the keeper, if there is one, of messages that are new, or that a person sends again."""
    if _keepers:
        _keepers[-1].accepted(state, uuids, session)


def in_place_of(provider: Provider) -> Provider:
    """Return the provider, or during a hush its stand-in."""
    return _keepers[-1].in_place_of(provider) if _keepers else provider
