"""``health``, ``doctor``, ``config test``, ``provider check``: what is wrong, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import urlsplit

import click

from ..configs.state import current
from ..delivery.monitor import doctor as checks
from ..delivery.monitor import health as monitor
from ..delivery.monitor.doctor import FAIL, Finding
from ..errors import InvalidQuery
from ..providers.net import hosts
from ..providers.remote import RemoteProvider
from .command import communication, explained
from .configs import config


@communication.command("health")
@explained
def health() -> None:
    """Print what GET health says, as JSON; exit with 1 where it would answer 503."""
    found = monitor.read(current())
    well = all(part["ok"] for part in found.values())
    click.echo(json.dumps({"success": well, "data": found}, indent=2))
    if not well:
        raise click.exceptions.Exit(1)


@communication.command("doctor")
@explained
def doctor() -> None:
    """Check all that can be checked, one line each with the next step; exit with 1 if one fails."""
    _show(checks.examine(current()))


@config.command("test")
@click.argument("config_id", metavar="ID")
@explained
def test_config(config_id: str) -> None:
    """Test whether a configuration's provider can be reached and lets us in; nothing is sent."""
    _show(checks.try_out(current(), config_id))


def _show(findings: Iterable[Finding]) -> None:
    failed = 0
    for one in findings:
        failed += one.level == FAIL
        click.echo(f"{one.level:5} {one.about}: {one.says}")
    if failed:
        raise click.exceptions.Exit(1)


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
    # A person who types the address on this machine may reach it anyway.
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
