"""``suppression …``: the recipients that get no more messages."""

from __future__ import annotations

import click

from ..configs.state import current
from ..delivery import actions
from ..delivery.policy import suppression
from .command import communication, cut, explained, table


@communication.group("suppression")
def suppressions() -> None:
    """The recipients that get no more messages."""


@suppressions.command("list")
@click.option("--to", "destination", help="The recipient.")
@click.option("--limit", type=int, default=50, show_default=True)
@click.option("--after", help="The end of the page before.")
@explained
def list_suppressions(destination: str | None, limit: int, after: str | None) -> None:
    """List the suppressed recipients, newest first."""
    page = suppression.page(current(), None, destination, after, limit)
    table(
        ("recipient", "for", "reason", "since", "detail"),
        [
            (
                one.destination,
                one.scope or "every sender",
                one.reason,
                f"{one.created_at:%F %T}",
                cut(one.detail or ""),
            )
            for one in page.items
        ],
    )
    if page.next:
        click.echo(f"more: --after {page.next}")


@suppressions.command("add")
@click.argument("destination")
@click.option("--sender", help="Only for this sender.")
@click.option("--key", help="Only for messages without a sender that go by this configuration.")
@click.option("--reason", default="manual", show_default=True)
@click.option("--detail", help="A note for the list.")
@explained
def suppress(
    destination: str, sender: str | None, key: str | None, reason: str, detail: str | None
) -> None:
    """Send nothing more to a recipient: SMS to a number, email to an address."""
    actions.suppress(current(), destination, sender, reason, key=key, detail=detail)
    click.echo(f"{destination} is suppressed")


@suppressions.command("remove")
@click.argument("destination")
@click.option("--sender", help="For this sender.")
@click.option("--key", help="For messages without a sender that go by this configuration.")
@explained
def unsuppress(destination: str, sender: str | None, key: str | None) -> None:
    """Let a recipient be written to again."""
    actions.unsuppress(current(), destination, sender, key=key)
    click.echo(f"{destination} is suppressed no more")
