"""``flask communication …``: the worker, the tables, and what an operator asks at three in the morning."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TextIO, TypeVar

import click
from flask.cli import AppGroup

from . import configs, decisions, email, history, messages, service, sms, story, tokens
from .email import Email
from .errors import CommunicationError
from .sms import SMS, SyncResult
from .state import current
from .worker import Worker

communication = AppGroup("communication", help="SMS, email and telephony.")

P = ParamSpec("P")
T = TypeVar("T")


def _explained(command: Callable[P, T]) -> Callable[P, T]:
    """Show our errors as one line, without a traceback."""

    @wraps(command)
    def explained(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except CommunicationError as wrong:
            raise click.ClickException(str(wrong)) from wrong

    return explained


@communication.command("worker")
@click.option("--burst", is_flag=True, help="Attend to what is due now, and end.")
@_explained
def work(burst: bool) -> None:
    """Attend to due messages until stopped; works with and without Redis."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    state = current()
    if burst:
        click.echo(f"{Worker(state).burst()} messages dialled")
        return
    bell = "woken through Redis" if state.settings.redis_url else "without Redis"
    click.echo(f"attending, {bell}, {state.settings.concurrency} calls at once; Ctrl+C ends it")
    service.serve(state)


@communication.command("upgrade")
@_explained
def upgrade() -> None:
    """Create our tables, or bring them up to date."""
    history.upgrade(current().database)
    click.echo("the tables of Flask-Communication are up to date")


@communication.command("sync")
@_explained
def sync() -> None:
    """Ask for the delivery reports of all messages that have none."""
    _sync("SMS", SMS.sync_delivery_report)
    _sync("emails", Email.sync_delivery_report)


def _sync(name: str, ask: Callable[[Callable[[int], None]], SyncResult]) -> None:
    result = ask(lambda asked: click.echo(f"\rasked about {asked}", nl=False, err=True))
    click.echo(err=True)
    click.echo(f"asked about {result.asked} {name}, {result.updated} changed, {result.open} still open")


@communication.command("send-sms")
@click.argument("destination")
@click.argument("msg")
@click.option("--key", help="The configuration's key or id; without it, the default one.")
@click.option("--priority", default="normal", show_default=True)
@_explained
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
@_explained
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


@communication.command("messages")
@click.option("--status")
@click.option("--to", "destination", help="The recipient.")
@click.option("--key", help="The configuration's key or id.")
@click.option("--limit", type=int, default=20, show_default=True)
@click.option("--after", help="Where the page before ended.")
@_explained
def list_messages(
    status: str | None, destination: str | None, key: str | None, limit: int, after: str | None
) -> None:
    """List messages, newest first."""
    page = messages.page(current(), status=status, destination=destination, key=key, after=after, limit=limit)
    _table(
        ("uuid", "channel", "status", "to", "created", "error"),
        [
            (one.uuid, one.channel, one.status, one.destination, f"{one.created_at:%F %T}", one.error or "")
            for one in page.items
        ],
    )
    if page.next:
        click.echo(f"more: --after {page.next}")


@communication.command("show")
@click.argument("uuid")
@_explained
def show(uuid: str) -> None:
    """Tell the whole story of one message, and what comes next."""
    for line in story.tell(current(), messages.get(current(), None, uuid)):
        click.echo(line)


@communication.command("explain")
@click.argument("channel", type=click.Choice(configs.TYPES))
@click.argument("destination")
@click.option("--key", help="The configuration's key or id; without it, the default one.")
@_explained
def explain(channel: str, destination: str, key: str | None) -> None:
    """Tell by which configuration a message would go now, and why; nothing is sent."""
    for line in story.foretell(current(), channel, destination, key):
        click.echo(line)


@communication.command("release")
@click.argument("uuids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are held.")
@click.option("--to", "destination", help="With --all: those of one recipient.")
@_explained
def release(uuids: Sequence[str], everything: bool, destination: str | None) -> None:
    """Let held messages pass: some, or all."""
    if everything == bool(uuids) or (destination and not everything):
        raise click.UsageError("name the messages, or say --all, which --to may narrow")
    state, released = current(), len(uuids)
    lifetimes = {sms.CHANNEL: sms.LIFETIME, email.CHANNEL: email.LIFETIME}
    for uuid in uuids:
        channel = messages.get(state, None, uuid).channel
        decisions.release(state, channel, uuid, lifetimes[channel])
    for channel, lifetime in lifetimes.items() if everything else ():
        released += decisions.release_all(state, channel, lifetime, destination)
    click.echo(f"{released} released")


@communication.group("suppression")
def suppressions() -> None:
    """Recipients that must not be written to."""


@suppressions.command("list")
@click.option("--to", "destination", help="The recipient.")
@click.option("--limit", type=int, default=50, show_default=True)
@click.option("--after", help="Where the page before ended.")
@_explained
def list_suppressions(destination: str | None, limit: int, after: str | None) -> None:
    """List the suppressed recipients, newest first."""
    page = SMS.suppressed(destination, after, limit)
    _table(
        ("recipient", "for", "reason", "since", "detail"),
        [
            (
                one.destination,
                one.scope or "every sender",
                one.reason,
                f"{one.created_at:%F %T}",
                one.detail or "",
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
@_explained
def suppress(destination: str, sender: str | None, key: str | None, reason: str, detail: str | None) -> None:
    """Send no more SMS to a recipient."""
    SMS.suppress(destination, sender, reason, key=key, detail=detail)
    click.echo(f"{destination} is suppressed")


@suppressions.command("remove")
@click.argument("destination")
@click.option("--sender", help="For this sender.")
@click.option("--key", help="For messages without a sender that go by this configuration.")
@_explained
def unsuppress(destination: str, sender: str | None, key: str | None) -> None:
    """Let a recipient be written to again."""
    SMS.unsuppress(destination, sender, key=key)
    click.echo(f"{destination} is suppressed no more")


@communication.group("config")
def config() -> None:
    """Configurations: which provider, with which settings."""


@config.command("list")
@click.option("--type", "channel", help="sms, email or telephony.")
@_explained
def list_configs(channel: str | None) -> None:
    """List the configurations, secrets masked."""
    _table(
        ("id", "type", "key", "provider", "package", "default", "enabled", "config"),
        [
            (
                str(one["id"]),
                one["type"],
                one.get("key") or "",
                one["provider"],
                one["provider_pkg_name"],
                "yes" if one.get("is_default") else "",
                "yes" if one.get("enabled") else "no",
                json.dumps(one["config"]),
            )
            for one in configs.listing(current(), type=channel)
        ],
    )


@config.command("add")
@click.option("--type", "channel", required=True, help="sms, email or telephony.")
@click.option("--provider-pkg-name", required=True, help="The provider, such as simulator.")
@click.option("--provider", default="", help="A name for people; the package's if left out.")
@click.option("--key", help="What a call of send_msg names it by.")
@click.option("--default", "is_default", is_flag=True, help="Use it when no key is given.")
@click.option("--fallback", "fallback", multiple=True, metavar="KEY", help="Send by this one if it cannot.")
@click.option("--weight", type=int, help="Of 100 messages so many begin with it; 100 if left out.")
@click.option("--rate", type=float, help="At most so many messages a second.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting that is no secret.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="A setting that is asked for.")
@_explained
def add_config(
    channel: str,
    provider_pkg_name: str,
    provider: str,
    key: str | None,
    is_default: bool,
    fallback: Sequence[str],
    weight: int | None,
    rate: float | None,
    pairs: Sequence[str],
    secrets: Sequence[str],
) -> None:
    """Store a configuration; secrets are asked for, so that they stay out of the shell's history."""
    values = dict(_pair(pair) for pair in pairs)
    values |= {name: click.prompt(name, hide_input=True) for name in secrets}
    fields: dict[str, Any] = {
        "type": channel,
        "provider": provider or provider_pkg_name,
        "provider_pkg_name": provider_pkg_name,
        "config": values,
    }
    more = {
        "key": key,
        "is_default": is_default or None,
        "fallback": list(fallback) or None,
        "weight": weight,
        "rate_per_second": rate,
    }
    fields |= {name: value for name, value in more.items() if value is not None}
    click.echo(f"configuration {configs.create(current(), fields)} stored")


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


@communication.group("token")
def token() -> None:
    """Bearer tokens, for machines that call the REST interface."""


@token.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="An action, message.*, or *.")
@click.option("--days", type=float, help="After so many days it is worthless; without it, never.")
@_explained
def create_token(name: str, scopes: Sequence[str], days: float | None) -> None:
    """Make a token and print it, once."""
    lasts = None if days is None else timedelta(days=days)
    click.echo(tokens.create(current(), name, scopes, lasts))


@token.command("list")
@_explained
def list_tokens() -> None:
    """List the tokens, without their secrets."""
    _table(
        ("id", "name", "scopes", "created", "last used", "state"),
        [
            (
                one.public_id,
                one.name,
                " ".join(one.scopes),
                f"{one.created_at:%F %T}",
                f"{one.last_used_at:%F %T}" if one.last_used_at else "never",
                "revoked" if one.revoked_at else f"until {one.expires_at:%F}" if one.expires_at else "",
            )
            for one in tokens.listing(current())
        ],
    )


@token.command("revoke")
@click.argument("token_id")
@_explained
def revoke_token(token_id: str) -> None:
    """Make a token worthless."""
    tokens.revoke(current(), token_id)
    click.echo(f"token {token_id} is revoked")


@communication.command("generate-key")
def generate_key() -> None:
    """Print a new key for COMMUNICATION_ENCRYPTION_KEYS."""
    from cryptography.fernet import Fernet

    click.echo(Fernet.generate_key().decode())


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
