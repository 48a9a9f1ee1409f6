"""Recipients that must not be written to."""

from __future__ import annotations

import click

from ..configs.state import current
from ..delivery.policy import suppression
from ..email import Email
from ..sms import SMS
from .command import communication, cut, explained, table


@communication.group("suppression")
def suppressions() -> None:
    """Recipients that must not be written to."""


@suppressions.command("list")
@click.option("--to", "destination", help="The recipient.")
@click.option("--limit", type=int, default=50, show_default=True)
@click.option("--after", help="Where the page before ended.")
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
@click.option("--detail", help="What somebody should know who finds it here.")
@explained
def suppress(
    destination: str, sender: str | None, key: str | None, reason: str, detail: str | None
) -> None:
    """Send nothing more to a recipient: SMS to a number, email to an address."""
    _channel(destination).suppress(destination, sender, reason, key=key, detail=detail)
    click.echo(f"{destination} is suppressed")


@suppressions.command("remove")
@click.argument("destination")
@click.option("--sender", help="For this sender.")
@click.option("--key", help="For messages without a sender that go by this configuration.")
@explained
def unsuppress(destination: str, sender: str | None, key: str | None) -> None:
    """Let a recipient be written to again."""
    _channel(destination).unsuppress(destination, sender, key=key)
    click.echo(f"{destination} is suppressed no more")


def _channel(destination: str) -> type[Email] | type[SMS]:
    return Email if "@" in destination else SMS
