"""``send-sms`` and ``send-email``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TextIO

import click

from ..email import Email
from ..sms import SMS
from .command import communication, explained


def _moment(_: click.Context, __: click.Parameter, raw: str | None) -> datetime | None:
    if raw is None:
        return None
    try:
        found = datetime.fromisoformat(raw)
    except ValueError:
        found = datetime.min
    if found.tzinfo is None:
        raise click.BadParameter(
            f"{raw!r} is no time with a zone, such as 2026-12-01T09:00:00+01:00"
        )
    return found


_priority = click.option(
    "--priority", default="normal", show_default=True, help="Or high, or bulk."
)
_at = click.option("--at", callback=_moment, help="Not before then: 2026-12-01T09:00:00+01:00.")


@communication.command("send-sms")
@click.argument("destination")
@click.argument("msg")
@click.option("--key", help="The configuration's key or id; without it, the default one.")
@_priority
@_at
@explained
def send_sms(
    destination: str, msg: str, key: str | None, priority: str, at: datetime | None
) -> None:
    """Accept one SMS and print its uuid; a worker sends it."""
    click.echo(SMS.send_msg(destination, msg, key, priority=priority, send_at=at))


@communication.command("send-email")
@click.argument("to", nargs=-1)
@click.option("--cc", multiple=True)
@click.option("--bcc", multiple=True)
@click.option("--subject", default="")
@click.option("--body", default="", help="The text; - reads it from standard input.")
@click.option("--html", help="A file with the HTML.", type=click.File())
@click.option("--attach", "files", multiple=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--sender", help="The From: 'Shop <shop@example.com>'.")
@click.option("--key", help="The configuration's key or id; without it, the default one.")
@_priority
@_at
@explained
def send_email(
    to: Sequence[str],
    cc: Sequence[str],
    bcc: Sequence[str],
    subject: str,
    body: str,
    html: TextIO | None,
    files: Sequence[str],
    sender: str | None,
    key: str | None,
    priority: str,
    at: datetime | None,
) -> None:
    """Accept one email to all these addresses and print its uuid; a worker sends it."""
    words = sys.stdin.read() if body == "-" else body
    page = html.read() if html else None
    email = Email(
        list(to), subject, words, html=page, cc=list(cc), bcc=list(bcc), sender=sender, key=key
    )
    for file in files:
        email.attach(file)
    click.echo(email.send(priority=priority, send_at=at))
