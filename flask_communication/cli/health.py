"""How it is: what the health check says."""

from __future__ import annotations

import json

import click

from .. import vitals
from ..state import current
from .command import communication, explained


@communication.command("health")
@explained
def health() -> None:
    """Print what GET health says, as JSON; exit with 1 where it would answer 503."""
    found = vitals.read(current())
    well = all(part["ok"] for part in found.values())
    click.echo(json.dumps({"success": well, "data": found}, indent=2))
    if not well:
        raise click.exceptions.Exit(1)
