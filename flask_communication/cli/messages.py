"""Looking at messages."""

from __future__ import annotations

import click

from .. import configs, forecast, messages, story
from ..state import current
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
    page = messages.page(current(), status=status, destination=destination, key=key, after=after, limit=limit)
    table(
        ("uuid", "channel", "status", "to", "created", "error"),
        [
            (
                one.uuid,
                one.channel,
                one.status,
                one.destination,
                f"{one.created_at:%F %T}",
                cut(one.error or ""),
            )
            for one in page.items
        ],
    )
    if page.next:
        click.echo(f"more: --after {page.next}")


@communication.command("show")
@click.argument("uuid")
@explained
def show(uuid: str) -> None:
    """Tell the whole story of one message, and what comes next."""
    for line in story.tell(current(), messages.get(current(), None, uuid)):
        click.echo(line)


@communication.command("explain")
@click.argument("channel", type=click.Choice(configs.TYPES))
@click.argument("destination")
@click.option("--key", help="The configuration's key or id; without it, the default one.")
@click.option("--sender", help="The message's sender; without it, COMMUNICATION_DEFAULT_SENDER.")
@explained
def explain(channel: str, destination: str, key: str | None, sender: str | None) -> None:
    """Tell what would become of a message now, by which configuration, and why; nothing is sent."""
    for line in forecast.foretell(current(), channel, destination, key, sender):
        click.echo(line)
