"""``messages``, ``show``, ``raw``, ``explain``, ``retry``, ``cancel``, ``resolve``, ``release``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..configs.state import current
from ..delivery import actions
from ..delivery.channel import channel_of_message, channels_of
from ..delivery.monitor.explain import explain, timeline
from ..email import incoming
from ..errors import CommunicationError
from ..storage import messages
from ..storage.models import CHANNELS
from .command import communication, cut, explained, table


@communication.command("messages")
@click.option("--status")
@click.option("--to", "destination", help="The recipient.")
@click.option("--key", help="The configuration's key or id.")
@click.option("--limit", type=int, default=20, show_default=True)
@click.option("--after", help="The end of the page before.")
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
    """Show one message with its attempts and events, and what comes next."""
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
    """Explain what would become of a message now, and why; nothing is sent."""
    for line in explain(current(), channel, destination, key, sender):
        click.echo(line)


@communication.command("retry")
@click.argument("uuid")
@click.option("--force", is_flag=True, help="Also where it could arrive twice.")
@explained
def retry(uuid: str, force: bool) -> None:
    """Send a message again."""
    state = current()
    actions.retry(state, channel_of_message(state, uuid), uuid, force=force)
    click.echo(f"{uuid} is queued; a worker sends it")


@communication.command("cancel")
@click.argument("uuid")
@explained
def cancel(uuid: str) -> None:
    """Stop a message that has not left."""
    state = current()
    actions.cancel(state, channel_of_message(state, uuid), uuid)
    click.echo(f"{uuid} is cancelled")


@communication.command("resolve")
@click.argument("uuid")
@click.argument("decision", metavar="sent|resend|drop")
@explained
def resolve(uuid: str, decision: str) -> None:
    """Store what became of an unknown message: it was sent, send it again, or drop it."""
    state = current()
    actions.resolve(state, channel_of_message(state, uuid), uuid, decision)
    click.echo(f"{uuid} is resolved: {decision}")


@communication.command("release")
@click.argument("uuids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are held.")
@click.option("--to", "destination", help="With --all: those of one recipient.")
@explained
def release(uuids: Sequence[str], everything: bool, destination: str | None) -> None:
    """Let held messages pass: some, or all."""
    if everything == bool(uuids) or (destination and not everything):
        raise click.UsageError("name the messages, or say --all, which --to may narrow")
    state, released, wrong = current(), 0, []
    for uuid in uuids:
        try:
            actions.release(state, channel_of_message(state, uuid), uuid)
            released += 1
        except CommunicationError as refused:
            # The others are released all the same.
            wrong.append(str(refused))
    for channel in channels_of(state) if everything else ():
        released += actions.release_all(state, channel, destination)
    click.echo(f"{released} released")
    if wrong:
        raise click.ClickException("; ".join(wrong))
