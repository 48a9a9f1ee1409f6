"""The extension: what ``init_app`` does to an application, and what it leaves alone."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from flask import Blueprint, Flask

from .configs.encryption import Vault
from .configs.registry import Registry
from .configs.settings import Settings
from .configs.state import EXTENSION, Authorize, State
from .delivery.worker import worker
from .email import channel as email
from .errors import NotInitialised, SettingError
from .providers.base import Provider
from .sms import channel as sms
from .storage import migrations
from .storage.database import Database

if TYPE_CHECKING:
    from click import Group

log = logging.getLogger(__name__)


class Communication:
    """SMS, email and telephony for the applications that it is initialised with.

    ``db`` is the host's Flask-SQLAlchemy object, found by itself if left out. ``url_prefix`` wins
    over COMMUNICATION_URL_PREFIX. ``authorize(action, resource)`` says, inside a request, whether
    its caller may; without it, and without a bearer token, every page and call is refused.
    """

    def __init__(
        self,
        app: Flask | None = None,
        db: Any = None,
        url_prefix: str | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        self._db = db
        self._url_prefix = url_prefix
        self._authorize = authorize
        self._providers: list[Provider] = []
        self._registries: WeakSet[Registry] = WeakSet()
        if app is not None:
            self.init_app(app)

    @cached_property
    def blueprint(self) -> Blueprint:
        """The blueprint, to mount by hand with COMMUNICATION_REGISTER_BLUEPRINT=False."""
        from .web import make_blueprint

        return make_blueprint()

    def init_app(
        self,
        app: Flask,
        db: Any = None,
        url_prefix: str | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        """Give an application its Flask-Communication; arguments win over those of the constructor.

        Raises :class:`SettingError` for a wrong setting, and RuntimeError if the application has
        one.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError("this application has a Flask-Communication already; use that one")
        state = self._state(app, db if db is not None else self._db, authorize or self._authorize)
        app.extensions[EXTENSION] = state
        self._registries.add(state.registry)
        for provider in self._providers:
            state.registry.register(provider)
        self._mount(app, state.settings, url_prefix)
        app.cli.add_command(_commands())
        _migrations(app, state)
        worker.engage(state)
        if state.authorize is None:
            log.info(
                "nobody may use the pages and calls of Flask-Communication, except with a token "
                "from `flask communication token create`; pass Communication(authorize=…) to let "
                "people in"
            )

    def _state(self, app: Flask, db: Any, authorize: Authorize | None) -> State:
        settings = Settings.from_config(app.config)
        return State(
            app=app,
            settings=settings,
            database=Database(app, db, settings.database_url),
            registry=Registry(app, settings),
            vault=Vault(settings.encryption_keys),
            authorize=authorize,
            channels={one.name: one for one in (sms.CHANNEL, email.CHANNEL)},
        )

    def _mount(self, app: Flask, settings: Settings, url_prefix: str | None) -> None:
        if not settings.register_blueprint:
            return
        prefix = url_prefix if url_prefix is not None else self._url_prefix
        if prefix is None:
            prefix = settings.url_prefix
        app.register_blueprint(self.blueprint, url_prefix=prefix or None)

    def register_provider(self, provider: Provider) -> None:
        """Make a provider known under its ``name``, to every application of this extension."""
        if not provider.name:
            raise SettingError(f"{type(provider).__name__} has no name; give the class a `name`")
        self._providers.append(provider)
        for registry in self._registries:
            registry.register(provider)

    def upgrade(self, app: Flask) -> None:
        """Create or update our tables, as ``flask communication upgrade`` does."""
        state = app.extensions.get(EXTENSION)
        if not isinstance(state, State):
            raise NotInitialised("call init_app(app) before upgrade(app)")
        migrations.upgrade(state.database)


def _commands() -> Group:
    from .cli import communication

    return communication


def _migrations(app: Flask, state: State) -> None:
    if state.settings.migrations == "host":
        if state.database.host is None:
            raise SettingError(
                'COMMUNICATION_MIGRATIONS="host" needs the host\'s SQLAlchemy object: initialise it '
                ""
                "first, or pass it as Communication(app, db)"
            )
        migrations.adopt(state.database.host.metadata)
    else:
        migrations.guard_autogenerate(app)
