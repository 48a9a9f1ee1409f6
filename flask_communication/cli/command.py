"""The group ``communication``, errors of one line, tables and progress for all commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import click
from flask.cli import AppGroup
from sqlalchemy.exc import OperationalError

from ..errors import CommunicationError

communication = AppGroup("communication", help="SMS, email and telephony.")

P = ParamSpec("P")
T = TypeVar("T")


def explained(command: Callable[P, T]) -> Callable[P, T]:
    """Show our errors as one line, without a traceback."""

    @wraps(command)
    def explaining(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except CommunicationError as wrong:
            raise click.ClickException(str(wrong)) from wrong
        except OperationalError as away:
            said = str(away.orig).strip().splitlines()[:1] or [type(away.orig).__name__]
            raise click.ClickException(f"the database cannot be used: {said[0]}") from away

    return explaining


def cut(said: str, limit: int = 60) -> str:
    """Return a text shortened for a table; `show` prints it whole."""
    line = " ".join(said.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def warn(said: str) -> None:
    """Print a warning to standard error."""
    click.echo(f"Warning: {said}", err=True)


def progress(said: str) -> None:
    """Print progress on a terminal, in one line that the next one replaces."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{said}", nl=False, err=True)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns under their titles."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
