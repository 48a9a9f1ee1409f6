"""How it is: what the health check says, and what a person should look at."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

from ..configs.state import current
from ..delivery.monitor import doctor as diagnosis
from ..delivery.monitor import health as vitals
from ..delivery.monitor.doctor import FAIL, Finding
from .command import communication, explained
from .configs import config


@communication.command("health")
@explained
def health() -> None:
    """Print what GET health says, as JSON; exit with 1 where it would answer 503."""
    found = vitals.read(current())
    well = all(part["ok"] for part in found.values())
    click.echo(json.dumps({"success": well, "data": found}, indent=2))
    if not well:
        raise click.exceptions.Exit(1)


@communication.command("doctor")
@explained
def doctor() -> None:
    """Check all that can be checked, one line each with the next step; exit with 1 if one fails."""
    _show(diagnosis.examine(current()))


@config.command("test")
@click.argument("config_id", metavar="ID")
@explained
def test_config(config_id: str) -> None:
    """Try whether a configuration's provider can be reached and lets us in; nothing is sent."""
    _show(diagnosis.try_out(current(), config_id))


def _show(findings: Iterable[Finding]) -> None:
    failed = 0
    for one in findings:
        failed += one.level == FAIL
        click.echo(f"{one.level:5} {one.about}: {one.says}")
    if failed:
        raise click.exceptions.Exit(1)
