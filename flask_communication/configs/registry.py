"""The registry of providers: finds one by name, and never imports a name from the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from flask import Flask
from werkzeug.routing import Rule

from ..errors import CommunicationError, ProviderNotFound, SettingError
from ..providers import standin
from ..providers.base import Provider
from .settings import Settings

GROUP = "flask_communication.providers"
# Found also where the package is not installed, as in a checkout; imported at the first use.
BUNDLED: Mapping[str, str] = {
    "simulator": "flask_communication.providers.simulator:Simulator",
    "smtp": "flask_communication.providers.smtp:SMTP",
}
_CORE = "flask_communication"
_CORE_BLUEPRINT = "communication"
_SEND = "/sms/send"


class Registry:
    """The providers of one application, found by name and then kept.

    A name is looked up, in this order, among: the providers registered on the extension; the entry
    points of the group ``flask_communication.providers``; the bundled providers; the addresses in
    COMMUNICATION_PROVIDERS; the blueprints of this application that serve the contract.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._registered: dict[str, Provider] = {}
        self._found: dict[str, Provider] = {}
        self._lock = threading.Lock()

    def register(self, provider: Provider) -> None:
        """Register a provider under its ``name``; it replaces another one of this name.

        Raises :class:`SettingError` for anything but a named Provider object.
        """
        if not isinstance(provider, Provider):
            raise SettingError(f"{provider!r} is no Provider object; register an instance")
        if not provider.name:
            raise SettingError(f"{type(provider).__name__} has no name; give the class a `name`")
        self._registered[provider.name] = provider

    def find(self, provider_pkg_name: str) -> Provider:
        """Return the provider of this name.

        Raises :class:`ProviderNotFound`, which lists the places and the known names.
        """
        name = provider_pkg_name
        known = self._registered.get(name) or self._found.get(name)
        return standin.in_place_of(known or self._find(name))

    def _find(self, name: str) -> Provider:
        with self._lock:
            if name not in self._found:
                self._found[name] = self._look(name)
            return self._found[name]

    def names(self) -> list[str]:
        """Return the names of all providers, sorted."""
        mounted = {name for mount in self._mounts() for name in mount.blueprints}
        installed = {point.name for point in entry_points(group=GROUP)}
        return sorted(
            {*self._registered, *installed, *BUNDLED, *self._settings.providers, *mounted}
        )

    def _look(self, name: str) -> Provider:
        found = _installed(name) or _bundled(name) or self._configured(name) or self._mounted(name)
        if found is None:
            raise ProviderNotFound(
                f"no provider is called {name!r}. Looked for one registered with "
                f"communication.register_provider, an installed package with the entry point "
                f"{GROUP}, an address in COMMUNICATION_PROVIDERS, and a blueprint of this "
                f"application named so that serves POST sms/send/. Known: {', '.join(self.names())}"
            )
        return found

    def _configured(self, name: str) -> Provider | None:
        from ..providers.remote import RemoteProvider

        address = self._settings.providers.get(name)
        return None if address is None else RemoteProvider(name, address.url, address.secret)

    def _mounted(self, name: str) -> Provider | None:
        mounts = list(self._mounts())
        called = [mount for mount in mounts if name in mount.blueprints]
        if called:
            return self._in_process(name, called[0])
        within = [mount for mount in mounts if mount.is_within(name)]
        if len({mount.root for mount in within}) > 1:
            raise ProviderNotFound(
                f"{name!r} is the package of several blueprints that serve POST sms/send/; write "
                f"one of their names: {', '.join(sorted(n for d in within for n in d.blueprints))}"
            )
        return self._in_process(name, within[0]) if within else None

    def _in_process(self, name: str, mount: _Mount) -> Provider:
        from ..providers.net.in_process import InProcess
        from ..providers.remote import RemoteProvider

        return RemoteProvider(
            name,
            f"https://{_host(self._app)}{mount.root}",
            transport=InProcess(self._app),
            trailing_slash=mount.trailing_slash,
        )

    def _mounts(self) -> Iterator[_Mount]:
        for rule in self._app.url_map.iter_rules():
            mount = _mount(self._app, rule)
            if mount is not None:
                yield mount


@dataclass(frozen=True)
class _Mount:
    """A URL rule of the host that ends in ``/sms/send``, so perhaps a provider's."""

    blueprints: frozenset[str]
    modules: frozenset[str]
    root: str
    trailing_slash: bool

    def is_within(self, name: str) -> bool:
        return any(f"{module}.".startswith(f"{name}.") for module in self.modules)


def _mount(app: Flask, rule: Rule) -> _Mount | None:
    root = rule.rule.rstrip("/").removesuffix(_SEND)
    if root == rule.rule.rstrip("/") or rule.arguments or rule.subdomain or rule.host:
        return None
    if "POST" not in (rule.methods or ()):
        return None
    full = rule.endpoint.rpartition(".")[0]
    # Flask names a nested blueprint "outer.inner", its author "inner".
    names = {full, full.rpartition(".")[2]} - {""}
    modules = set(_modules(app, rule.endpoint, full))
    if _CORE_BLUEPRINT in names or any(_is_core(one) for one in modules):
        return None
    return _Mount(frozenset(names), frozenset(modules), root, rule.rule.endswith("/"))


def _modules(app: Flask, endpoint: str, blueprint: str) -> Iterator[str]:
    view, mounted = app.view_functions.get(endpoint), app.blueprints.get(blueprint)
    if view is not None:
        yield view.__module__
    if mounted is not None:
        yield mounted.import_name


def _is_core(module: str) -> bool:
    return f"{module}.".startswith(f"{_CORE}.") and not module.startswith(f"{_CORE}.providers")


def _installed(name: str) -> Provider | None:
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    return _loaded(points[0]) if points else None


def _bundled(name: str) -> Provider | None:
    where = BUNDLED.get(name)
    if where is None:
        return None
    module, _, attribute = where.partition(":")
    return _made(name, getattr(import_module(module), attribute))


def _loaded(point: EntryPoint) -> Provider:
    try:
        return _made(point.name, point.load())
    except CommunicationError:
        raise
    except Exception as exc:
        raise ProviderNotFound(
            f"the provider {point.name!r} is installed and cannot be loaded from {point.value} "
            f"({type(exc).__name__}: {exc}); repair or remove that package"
        ) from exc


def _made(name: str, thing: object) -> Provider:
    provider = thing() if isinstance(thing, type) else thing
    if not isinstance(provider, Provider):
        raise ProviderNotFound(f"the entry point {name!r} must name a Provider class or object")
    return provider


def _host(app: Flask) -> str:
    # A host that checks the Host header must recognise our requests as its own.
    trusted = app.config.get("TRUSTED_HOSTS") or ()
    named = app.config.get("SERVER_NAME") or next(iter(trusted), "localhost")
    return str(named).lstrip(".")
