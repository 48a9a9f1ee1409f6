"""``prune`` and ``erase``: retention by age, and the erasure of a recipient."""

from __future__ import annotations

from collections import Counter

import click

from ..configs.state import current
from ..storage import retention
from .command import communication, explained, progress


@communication.command("prune")
@click.option("--dry-run", is_flag=True, help="Only count what would be done.")
@explained
def prune(dry_run: bool) -> None:
    """Remove texts and delete messages that are older than the settings keep them."""
    database, settings = current().database, current().settings
    policy = {
        "messages_days": settings.keep_messages_days,
        "bodies_days": settings.keep_bodies_days,
    }
    if dry_run:
        for what, count in retention.preview(database, **policy).items():
            click.echo(f"{count} {what}")
        return
    done: Counter[str] = Counter()
    for what, count in retention.sweep(database, **policy):
        done[what] += count
        progress(f"{done[what]} {what}")
    progress("")
    click.echo(", ".join(f"{count} {what}" for what, count in done.items()) or "nothing to do")


@communication.command("erase")
@click.argument("recipient")
@click.option("--yes", is_flag=True, help="Do not ask.")
@explained
def erase(recipient: str, yes: bool) -> None:
    """Delete every message to and from a recipient, of all channels; opt-outs stay."""
    if not yes:
        click.confirm(f"Delete every message to and from {recipient}?", abort=True)
    state = current()
    erased = retention.erase(
        state.database, state.settings.default_region, recipient, state.channel_names
    )
    click.echo(f"{erased.deleted} messages deleted, to and from {recipient.strip()}")
    if erased.left:
        raise click.ClickException(f"{erased.left} is being sent; run this again in a minute")
