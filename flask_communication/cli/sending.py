"""Sending from the shell."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

import click

from ..email import Email
from ..sms import SMS
from .command import communication, explained


@communication.command("send-sms")
@click.argument("destination")
@click.argument("msg")
@click.option("--key", help="The configuration's key or id; without it, the default one.")
@click.option("--priority", default="normal", show_default=True)
@explained
def send_sms(destination: str, msg: str, key: str | None, priority: str) -> None:
    """Accept one SMS and print its uuid; a worker sends it."""
    click.echo(SMS.send_msg(destination, msg, key, priority=priority))


@communication.command("send-email")
@click.argument("to", nargs=-1, required=True)
@click.option("--subject", default="")
@click.option("--body", default="", help="The text; - reads it from standard input.")
@click.option("--html", help="A file with the HTML.", type=click.File())
@click.option("--attach", "files", multiple=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--sender", help="Such as 'Shop <shop@example.com>'.")
@click.option("--key", help="The configuration's key or id; without it, the default one.")
@explained
def send_email(
    to: Sequence[str],
    subject: str,
    body: str,
    html: TextIO | None,
    files: Sequence[str],
    sender: str | None,
    key: str | None,
) -> None:
    """Accept one email to all these addresses and print its uuid; a worker sends it."""
    words = sys.stdin.read() if body == "-" else body
    email = Email(list(to), subject, words, html.read() if html else None, sender=sender, key=key)
    for file in files:
        email.attach(file)
    click.echo(email.send())
