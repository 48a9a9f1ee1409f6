"""``worker``, ``upgrade`` and ``sync``: sending, the tables, delivery reports and inboxes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import click

from ..configs.state import current
from ..delivery.worker import process
from ..delivery.worker.worker import Worker
from ..email import Email
from ..sms import SMS
from ..sms.api import SyncResult
from ..storage import migrations
from .command import communication, explained, progress


@communication.command("worker")
@click.option("--burst", is_flag=True, help="Send what is due now, and end.")
@explained
def work(burst: bool) -> None:
    """Send due messages until stopped; works with and without Redis."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    state = current()
    if burst:
        click.echo(f"{Worker(state).burst()} messages attempted")
        return
    bell = "woken through Redis" if state.settings.redis_url else "without Redis"
    click.echo(f"attending, {bell}, {state.settings.concurrency} requests at once; Ctrl+C ends it")
    process.serve(state)


@communication.command("upgrade")
@explained
def upgrade() -> None:
    """Create our tables, or bring them up to date."""
    migrations.upgrade(current().database)
    click.echo("the tables of Flask-Communication are up to date")


@communication.command("sync")
@explained
def sync() -> None:
    """Ask for the delivery reports of all messages that have none, and read all inboxes."""
    _sync("SMS", SMS.sync_delivery_report)
    _sync("emails", Email.sync_delivery_report)
    found = Email.sync_inbox()
    click.echo(f"read {found.fetched} mails of the inboxes, {found.new} new")
    if found.failed:
        raise click.ClickException(
            f"{found.failed} inboxes could not be read to the end; the log says why"
        )


def _sync(name: str, ask: Callable[[Callable[[int], None]], SyncResult]) -> None:
    result = ask(lambda asked: progress(f"asked about {asked}"))
    progress("")
    click.echo(
        f"asked about {result.asked} {name}, {result.updated} changed, {result.open} still open"
    )
