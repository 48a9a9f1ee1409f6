"""What belongs to one application: kept in ``app.extensions["communication"]``, never on the extension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from flask import current_app

from ..delivery.worker.bell import Bell
from ..errors import NotInitialised
from ..storage.database import Database
from ..storage.models import CHANNELS
from .encryption import Vault
from .registry import Registry
from .settings import Settings

if TYPE_CHECKING:
    from flask import Flask

EXTENSION = "communication"

# authorize(action, resource) -> bool, called inside the request.
Authorize = Callable[[str, Any], bool]


class Wakeable(Protocol):
    """A worker, as seen from below."""

    def wake(self) -> None:
        """Say that there is new work."""


@dataclass(eq=False)
class State:
    """The objects of one application."""

    app: Flask
    settings: Settings
    database: Database
    registry: Registry
    vault: Vault
    authorize: Authorize | None = None
    # Name -> what delivery knows of a channel: see delivery.channel.
    channels: dict[str, object] = field(default_factory=dict)
    # Tells the workers that there is work; see worker.engage.
    ring: Callable[[], None] = field(default=lambda: None)
    bell: Bell | None = None
    # The worker of this very process, while it is one.
    worker: Wakeable | None = None
    warned: set[str] = field(default_factory=set)
    # When the messages were counted last (monotonic seconds), and the counts; see vitals.
    counted: tuple[float, list[tuple[Any, ...]]] | None = None

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels that may be named: those of this application, and those of the tables."""
        return tuple(dict.fromkeys((*CHANNELS, *self.channels)))


def state_of(app: Flask) -> State:
    """Return the state of ``app``; raise :class:`NotInitialised` if it never met ``init_app``."""
    state = app.extensions.get(EXTENSION)
    if state is None:
        raise NotInitialised(
            "this application has no Flask-Communication; call Communication(app) or "
            "communication.init_app(app) first"
        )
    assert isinstance(state, State)
    return state


def current() -> State:
    """Return the state of the active application.

    Raises :class:`NotInitialised` outside of an application context.
    """
    if not current_app:
        raise NotInitialised(
            "no application is active; call this in a request, or inside: with app.app_context():"
        )
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]
