"""The objects of one application, kept in ``app.extensions["communication"]``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from flask import current_app

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
Authorize = Callable[[str, object], bool]


class Wakeable(Protocol):
    """A worker, as the layers below it see it."""

    def wake(self) -> None:
        """Say that there is new work."""


class WorkerBell(Protocol):
    """The bell that wakes workers through Redis, as the layers below it see it."""

    def connect(self) -> Any:
        """Open a connection to Redis."""

    def hear(self, wake: Callable[[], None], ended: threading.Event) -> None:
        """Call ``wake`` at every ring, until ``ended``."""

    def answer(self) -> None:
        """Say that a worker is about to look for work."""


@dataclass(eq=False)
class State:
    """The objects of one application."""

    app: Flask
    settings: Settings
    database: Database
    registry: Registry
    vault: Vault
    authorize: Authorize | None = None
    #: Name -> channel; see :mod:`.delivery.channel`.
    channels: dict[str, object] = field(default_factory=dict)
    #: Tells the workers that there is work.
    ring: Callable[[], None] = field(default=lambda: None)
    #: Wakes workers through Redis, where there is one.
    bell: WorkerBell | None = None
    #: The worker of this process, while it is a worker process.
    worker: Wakeable | None = None

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels that may be named: those of this application, and those of the tables."""
        return tuple(dict.fromkeys((*CHANNELS, *self.channels)))


def state_of(app: Flask) -> State:
    """Return the state of ``app``; raise :class:`NotInitialised` if ``init_app`` never got it."""
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
