"""Providers on other machines."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from ..errors import InvalidQuery
from ..providers.net import hosts
from ..providers.remote import RemoteProvider
from .command import communication, explained


@communication.group("provider")
def provider() -> None:
    """Providers on other machines."""


@provider.command("check")
@click.argument("url")
@explained
def check_provider(url: str) -> None:
    """Ask the provider at an address what it can do; nothing is sent."""
    if not _is_address(url):
        raise InvalidQuery({"url": ["must be an address that begins with http:// or https://"]})
    # Whoever types the address on this machine may reach it anyway.
    with hosts.unguarded():
        found = RemoteProvider("checked", url).check({})
    for line in found.split("; "):
        click.echo(line)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
