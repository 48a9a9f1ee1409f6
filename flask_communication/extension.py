"""The Flask extension, and what ``init_app`` adds to an application."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from flask import Blueprint, Flask, request_started

from .configs.encryption import Vault
from .configs.registry import Registry
from .configs.settings import Settings
from .configs.state import EXTENSION, Authorize, State, state_of
from .delivery.channel import Channel
from .delivery.worker.bell import Bell
from .delivery.worker.worker import Ticker, Worker
from .email import channel as email
from .errors import SettingError
from .providers import standin
from .providers.base import Provider
from .sms import channel as sms
from .storage import migrations
from .storage.database import Database

if TYPE_CHECKING:
    from click import Group

log = logging.getLogger(__name__)


class Communication:
    """The Flask extension: SMS, email and telephony for the applications that it is given.

    ``db`` is the host's Flask-SQLAlchemy object; the extension finds it if it is left out.
    ``url_prefix`` wins over COMMUNICATION_URL_PREFIX. ``authorize(action, resource)`` says, inside
    a request, whether its caller may do something; without it, pages and REST calls refuse every
    request without a bearer token.
    """

    def __init__(
        self,
        app: Flask | None = None,
        db: object = None,
        url_prefix: str | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        self._db = db
        self._url_prefix = url_prefix
        self._authorize = authorize
        self._providers: list[Provider] = []
        self._channels: list[Channel] = [sms.CHANNEL, email.CHANNEL]
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
        db: object = None,
        url_prefix: str | None = None,
        authorize: Authorize | None = None,
    ) -> None:
        """Initialise an application; arguments win over those of the constructor.

        Raises :class:`SettingError` for a wrong setting, and RuntimeError if the application is
        initialised already.
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
        _wire_workers(state)
        if state.authorize is None:
            log.info(
                "the pages and REST calls of Flask-Communication refuse everybody without a token "
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
            channels={one.name: one for one in self._channels},
        )

    def _mount(self, app: Flask, settings: Settings, url_prefix: str | None) -> None:
        if not settings.register_blueprint:
            return
        prefix = url_prefix if url_prefix is not None else self._url_prefix
        if prefix is None:
            prefix = settings.url_prefix
        app.register_blueprint(self.blueprint, url_prefix=prefix or None)

    def register_provider(self, provider: Provider) -> None:
        """Register a provider under its ``name``, for every application of this extension."""
        if not provider.name:
            raise SettingError(f"{type(provider).__name__} has no name; give the class a `name`")
        self._providers.append(provider)
        for registry in self._registries:
            registry.register(provider)

    def register_channel(self, channel: Channel) -> None:
        """Add a channel of the host's own, for the applications that are initialised after it."""
        self._channels.append(channel)

    def upgrade(self, app: Flask) -> None:
        """Create or update our tables, as ``flask communication upgrade`` does."""
        migrations.upgrade(state_of(app).database)

    def downgrade(self, app: Flask, revision: str) -> None:
        """Migrate our tables back to a revision, before an older release is installed."""
        migrations.downgrade(state_of(app).database, revision)


def _commands() -> Group:
    from .cli import communication

    return communication


def _migrations(app: Flask, state: State) -> None:
    if state.settings.migrations == "host":
        if state.database.host is None:
            raise SettingError(
                'COMMUNICATION_MIGRATIONS="host" needs the SQLAlchemy object of the host: '
                "initialise it first, or pass it as Communication(app, db)"
            )
        migrations.adopt(state.database.host.metadata)
    else:
        migrations.guard_autogenerate(app)


def _wire_workers(state: State) -> None:
    """Decide how workers learn of new messages; start no thread yet.

    Threads do not survive a fork, and a web server may fork after it has made the application. So
    the threads start with the first request, or the first message, of the process.
    """
    if state.settings.redis_url is not None:
        bell = Bell(state.settings)
        bell.prepare()
        ticker = Ticker(state, bell)
        state.bell, state.ring = bell, _unless_testing(bell.ring, ticker.ensure_thread)
        _at_first_request(state.app, _unless_testing(ticker.ensure_thread))
    elif state.settings.embedded_worker:
        worker = _EmbeddedWorker(state)
        state.ring = _unless_testing(worker.start, worker.wake)
        _at_first_request(state.app, _unless_testing(worker.start))


class _EmbeddedWorker:
    """The worker thread of a web process that has no Redis."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._worker = Worker(state)
        self._has_warned = False
        self.wake = self._worker.wake

    def start(self) -> None:
        """Start the thread once, unless this process is a worker, or cannot have one."""
        if self._state.worker is not None:
            return
        if not self._state.database.shares_one_connection:
            self._worker.ensure_thread()
        elif not self._has_warned:
            self._has_warned = True
            log.warning(
                "an in-memory SQLite database has one connection, which a worker thread cannot "
                "share with your requests; messages wait for: flask communication worker --burst, "
                "or use a file"
            )


def _unless_testing(*steps: Callable[[], None]) -> Callable[[], None]:
    def go() -> None:
        if not standin.is_on():
            for step in steps:
                step()

    return go


def _at_first_request(app: Flask, start: Callable[[], None]) -> None:
    def receive(_sender: Flask, **_fields: object) -> None:
        start()

    # Not one of the app's before_request functions: those are the host's.
    request_started.connect(receive, app, weak=False)
