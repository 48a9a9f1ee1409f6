"""What a person decides about a message, an SMS or an email: again, not at all, or what became of it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..configs.state import current
from ..delivery import actions
from ..delivery.channel import channels_of
from ..email import Email
from ..errors import CommunicationError
from ..sms import SMS
from ..storage import messages
from .command import communication, explained

APIS: dict[str, type[Email] | type[SMS]] = {"email": Email, "sms": SMS}


def _api(uuid: str) -> type[Email] | type[SMS]:
    return APIS[messages.get(current().database, None, uuid).channel]


@communication.command("retry")
@click.argument("uuid")
@click.option("--force", is_flag=True, help="Also where it could ring twice.")
@explained
def retry(uuid: str, force: bool) -> None:
    """Send a message again."""
    _api(uuid).retry_send(uuid, force=force)
    click.echo(f"{uuid} is queued; a worker sends it")


@communication.command("cancel")
@click.argument("uuid")
@explained
def cancel(uuid: str) -> None:
    """Stop a message that has not left."""
    _api(uuid).cancel(uuid)
    click.echo(f"{uuid} is cancelled")


@communication.command("resolve")
@click.argument("uuid")
@click.argument("decision", metavar="sent|resend|drop")
@explained
def resolve(uuid: str, decision: str) -> None:
    """Say what became of an unknown message: it was sent, send it again, or let it be."""
    _api(uuid).resolve(uuid, decision)
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
            _api(uuid).release(uuid)
            released += 1
        except CommunicationError as refused:
            # The others are none the worse for it.
            wrong.append(str(refused))
    for channel in channels_of(state) if everything else ():
        released += actions.release_all(state, channel, destination)
    click.echo(f"{released} released")
    if wrong:
        raise click.ClickException("; ".join(wrong))
