"""``config …`` and ``rotate-keys``: which provider, with which settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..configs import store
from ..configs.routes import Route, Routes
from ..configs.state import current
from ..errors import CommunicationError, ConfigNotFound
from .command import communication, cut, explained, table, warn


@communication.group("config")
def config() -> None:
    """Configurations: which provider, with which settings."""


@config.command("list")
@click.option("--type", "channel", help="sms, email or telephony.")
@explained
def list_configs(channel: str | None) -> None:
    """List the configurations, secrets masked, each with its state."""
    routes, unknown = _routes(), store.unknown_fallbacks(current())
    table(
        (
            *("id", "type", "key", "provider", "package", "default", "enabled"),
            *("fallback", "weight", "rate", "state", "config"),
        ),
        [
            (
                str(one["id"]),
                one["type"],
                one.get("key") or "",
                one["provider"],
                one["provider_pkg_name"],
                "yes" if one.get("is_default") else "",
                "yes" if one.get("enabled") else "no",
                _fallback(one, unknown),
                str(one["weight"]),
                _rate(one),
                cut(_state(one, routes)),
                json.dumps(one["config"]),
            )
            for one in store.listing(current(), type=channel)
        ],
    )


@config.command("show")
@click.argument("config_id", metavar="ID")
@explained
def show_config(config_id: str) -> None:
    """Show one configuration, secrets masked, with its fallbacks and its state."""
    one = _one(config_id)
    click.echo(store.name_of(current(), config_id))
    click.echo(f"  provider {one['provider'] or '-'}, package {one['provider_pkg_name'] or '-'}")
    default = "the default one, " if one["is_default"] else ""
    click.echo(
        f"  {default}{'enabled' if one['enabled'] else 'disabled'}, version {one['version']}"
    )
    click.echo(f"  fallback {_fallback(one, store.unknown_fallbacks(current())) or '-'}")
    click.echo(f"  weight {one['weight']}, rate {_rate(one) or '-'}")
    for name, value in one["config"].items():
        click.echo(f"  {name} = {json.dumps(value)}")
    click.echo(f"  state: {_state(one, _routes())}")


def _one(config_id: str) -> dict[str, Any]:
    known = next((one for one in store.listing(current()) if str(one["id"]) == config_id), None)
    if known is None:
        raise ConfigNotFound(
            f"there is no configuration {config_id}; see: flask communication config list"
        )
    return known


def _routes() -> Mapping[int, Route]:
    state = current()
    with state.database.read() as connection:
        return Routes(state).load(connection)


def _state(one: Mapping[str, Any], routes: Mapping[int, Route]) -> str:
    route = routes[one["id"]]
    said = route.trouble or str(route.breaker)
    return said.removeprefix(f"{route.name} is ").removeprefix(
        f"configuration {route.config_id} is "
    )


def _fallback(one: Mapping[str, Any], unknown: Mapping[int, Sequence[str]]) -> str:
    names = unknown.get(one["id"], ())
    return ", ".join(f"{key} (unknown)" if key in names else key for key in one["fallback"] or ())


def _rate(one: Mapping[str, Any]) -> str:
    return "" if one["rate_per_second"] is None else f"{one['rate_per_second']:g}"


@config.command("add")
@click.option("--type", "channel", required=True, help="sms, email or telephony.")
@click.option("--provider-pkg-name", required=True, help="The provider, such as simulator.")
@click.option("--provider", default="", help="A name for people; the package's if left out.")
@click.option("--key", help="The name by which messages choose it.")
@click.option("--default", "is_default", is_flag=True, help="Use it for messages that name no key.")
@click.option(
    "--fallback",
    "fallback",
    multiple=True,
    metavar="KEY",
    help="The configuration to use if it cannot send.",
)
@click.option(
    "--weight", type=int, help="How many of 100 messages are first sent by it; 100 if left out."
)
@click.option("--rate", type=float, help="At most so many messages a second.")
@click.option(
    "--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting that is not secret."
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help="A secret setting; its value is asked for.",
)
@explained
def add_config(
    channel: str,
    provider_pkg_name: str,
    provider: str,
    key: str | None,
    is_default: bool,
    fallback: Sequence[str],
    weight: int | None,
    rate: float | None,
    pairs: Sequence[str],
    secrets: Sequence[str],
) -> None:
    """Store a configuration.

    Secrets are asked for, so that they stay out of the shell's history.
    """
    fields: dict[str, Any] = {
        "type": channel,
        "provider": provider or provider_pkg_name,
        "provider_pkg_name": provider_pkg_name,
        "config": _settings(pairs, secrets),
    }
    more = {
        "key": key,
        "is_default": is_default or None,
        "fallback": list(fallback) or None,
        "weight": weight,
        "rate_per_second": rate,
    }
    fields |= {name: value for name, value in more.items() if value is not None}
    config_id = store.create(current(), fields)
    click.echo(f"configuration {config_id} stored")
    _warn(config_id, provider_pkg_name)


@config.command("update")
@click.argument("config_id", metavar="ID")
@click.option("--enabled/--disabled", default=None, help="Whether it is used.")
@click.option("--key", help="The name by which messages choose it.")
@click.option("--default", "is_default", is_flag=True, help="Use it for messages that name no key.")
@click.option(
    "--fallback",
    "fallback",
    multiple=True,
    metavar="KEY",
    help="The configuration to use if it cannot send.",
)
@click.option("--no-fallback", is_flag=True, help="Send by no other.")
@click.option("--weight", type=int, help="How many of 100 messages are first sent by it.")
@click.option("--rate", type=float, help="At most so many messages a second.")
@click.option("--no-rate", is_flag=True, help="No limit of the rate.")
@click.option(
    "--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting that is not secret."
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help="A secret setting; its value is asked for.",
)
@click.option("--clear", "cleared", multiple=True, metavar="NAME", help="A setting to remove.")
@explained
def update_config(
    config_id: str,
    enabled: bool | None,
    key: str | None,
    is_default: bool,
    fallback: Sequence[str],
    no_fallback: bool,
    weight: int | None,
    rate: float | None,
    no_rate: bool,
    pairs: Sequence[str],
    secrets: Sequence[str],
    cleared: Sequence[str],
) -> None:
    """Change a configuration; what is not named stays. One that was paused is tried again."""
    if (no_rate and rate is not None) or (no_fallback and fallback):
        raise click.UsageError("give a rate or --no-rate, a fallback or --no-fallback")
    config = {**_settings(pairs, secrets), **dict.fromkeys(cleared)}
    given = {
        "enabled": enabled,
        "key": key,
        "is_default": is_default or None,
        "fallback": list(fallback) or ([] if no_fallback else None),
        "weight": weight,
        "rate_per_second": rate,
        "config": config or None,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    number = store.change(
        current(), config_id, fields | ({"rate_per_second": None} if no_rate else {})
    )
    click.echo(f"configuration {number} is changed")
    now = _one(str(number))
    _warn(number, now["provider_pkg_name"] or now["provider"])


@config.command("delete")
@click.argument("config_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@explained
def delete_config(config_id: str, yes: bool) -> None:
    """Delete a configuration; nothing is sent by it any more."""
    name = store.name_of(current(), config_id)
    if not yes:
        click.confirm(f"Delete {name}?", abort=True)
    store.delete(current(), config_id)
    click.echo(
        f"{name} is deleted; what still waits for it goes by the default one after: retry UUID"
    )


@communication.command("rotate-keys")
@explained
def rotate_keys() -> None:
    """Encrypt all secrets with the first of COMMUNICATION_ENCRYPTION_KEYS."""
    resealed, problems = store.reseal(current())
    click.echo(f"{resealed} configurations are encrypted with the first key")
    if problems:
        raise click.ClickException("; ".join(problems))


def _settings(pairs: Sequence[str], secrets: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = dict(_pair(pair) for pair in pairs)
    return given | {name: click.prompt(name, hide_input=True) for name in secrets}


def _warn(config_id: int, package: str) -> None:
    for name in store.unknown_fallbacks(current()).get(config_id, ()):
        warn(
            f"no configuration of this type has the key {name!r} yet; nothing goes by it until one "
            "does"
        )
    try:
        current().registry.find(package)
    except CommunicationError as wrong:
        warn(f"nothing can be sent by it yet: {wrong}")


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value
