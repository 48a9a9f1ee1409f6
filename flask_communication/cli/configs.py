"""Configurations: which provider, with which settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from .. import configs
from ..state import current
from .command import communication, explained, table


@communication.group("config")
def config() -> None:
    """Configurations: which provider, with which settings."""


@config.command("list")
@click.option("--type", "channel", help="sms, email or telephony.")
@explained
def list_configs(channel: str | None) -> None:
    """List the configurations, secrets masked."""
    table(
        ("id", "type", "key", "provider", "package", "default", "enabled", "config"),
        [
            (
                str(one["id"]),
                one["type"],
                one.get("key") or "",
                one["provider"],
                one["provider_pkg_name"],
                "yes" if one.get("is_default") else "",
                "yes" if one.get("enabled") else "no",
                json.dumps(one["config"]),
            )
            for one in configs.listing(current(), type=channel)
        ],
    )


@config.command("add")
@click.option("--type", "channel", required=True, help="sms, email or telephony.")
@click.option("--provider-pkg-name", required=True, help="The provider, such as simulator.")
@click.option("--provider", default="", help="A name for people; the package's if left out.")
@click.option("--key", help="What a call of send_msg names it by.")
@click.option("--default", "is_default", is_flag=True, help="Use it when no key is given.")
@click.option("--fallback", "fallback", multiple=True, metavar="KEY", help="Send by this one if it cannot.")
@click.option("--weight", type=int, help="Of 100 messages so many begin with it; 100 if left out.")
@click.option("--rate", type=float, help="At most so many messages a second.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting that is no secret.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="A setting that is asked for.")
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
    """Store a configuration; secrets are asked for, so that they stay out of the shell's history."""
    values = dict(_pair(pair) for pair in pairs)
    values |= {name: click.prompt(name, hide_input=True) for name in secrets}
    fields: dict[str, Any] = {
        "type": channel,
        "provider": provider or provider_pkg_name,
        "provider_pkg_name": provider_pkg_name,
        "config": values,
    }
    more = {
        "key": key,
        "is_default": is_default or None,
        "fallback": list(fallback) or None,
        "weight": weight,
        "rate_per_second": rate,
    }
    fields |= {name: value for name, value in more.items() if value is not None}
    click.echo(f"configuration {configs.create(current(), fields)} stored")


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value
