"""Looking at messages."""

from __future__ import annotations

import click

from ..configs.state import current
from ..delivery.monitor.explain import explain, timeline
from ..email import incoming
from ..storage import messages
from ..storage.models import CHANNELS
from .command import communication, cut, explained, table


@communication.command("messages")
@click.option("--status")
@click.option("--to", "destination", help="The recipient.")
@click.option("--key", help="The configuration's key or id.")
@click.option("--limit", type=int, default=20, show_default=True)
@click.option("--after", help="Where the page before ended.")
@explained
def list_messages(
    status: str | None, destination: str | None, key: str | None, limit: int, after: str | None
) -> None:
    """List messages, newest first."""
    state = current()
    page = messages.page(
        state.database,
        status=status,
        destination=destination,
        key=key,
        after=after,
        limit=limit,
        region=state.settings.default_region,
        channels=state.channels,
    )
    columns = {
        "uuid": [one.uuid for one in page.items],
        "channel": [one.channel for one in page.items],
        "status": [one.status for one in page.items],
        "to": [one.destination for one in page.items],
        "from": [(one.sender or "") if one.direction == "in" else "" for one in page.items],
        "subject": [cut(one.mail.subject) if one.mail else "" for one in page.items],
        "created": [f"{one.created_at:%F %T}" for one in page.items],
        "error": [cut(one.error or "") for one in page.items],
    }
    # Most lists have no email, or nothing that came in.
    shown = {
        name: cells
        for name, cells in columns.items()
        if name not in ("from", "subject") or any(cells)
    }
    table(tuple(shown), list(zip(*shown.values(), strict=True)))
    if page.next:
        click.echo(f"more: --after {page.next}")


@communication.command("show")
@click.argument("uuid")
@explained
def show(uuid: str) -> None:
    """Tell the whole story of one message, and what comes next."""
    for line in timeline(current(), messages.get(current().database, None, uuid)):
        click.echo(line)


@communication.command("raw")
@click.argument("uuid")
@explained
def raw(uuid: str) -> None:
    """Print a received email as it came; redirect it to a file."""
    click.echo(incoming.raw(current(), uuid), nl=False)


@communication.command("explain")
@click.argument("channel", type=click.Choice(CHANNELS))
@click.argument("destination")
@click.option("--key", help="The configuration's key or id; without it, the default one.")
@click.option("--sender", help="The message's sender; without it, COMMUNICATION_DEFAULT_SENDER.")
@explained
def explain_message(channel: str, destination: str, key: str | None, sender: str | None) -> None:
    """Tell what would become of a message now, by which configuration, and why; nothing is sent."""
    for line in explain(current(), channel, destination, key, sender):
        click.echo(line)
