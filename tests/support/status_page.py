"""docs/statuses.md, made from the table of statuses: ``python -m tests.support.status_page``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from flask_communication.storage.models import status

PAGE = Path(__file__).parents[2] / "docs" / "statuses.md"

INTRODUCTION = """\
# Statuses

<!-- Made from flask_communication/storage/models/status.py: python -m tests.support.status_page -->

Each message has one status. Its `due_at` says when a worker looks at it next.
A new message is `queued`, and one that comes in is `received`.

"""
MOVES = """\
## Moves
Nothing else changes a status, except a delivery report.

"""
REPORTS = """\
## Delivery reports
A report moves a message only if it says more than the message knows. Every report is stored.

"""
ATTEMPTS = """\
## States of an attempt
An attempt is one request to a provider. It is stored before the request is made.

"""


def page() -> str:
    """Return the whole page."""
    parts = [
        INTRODUCTION + _table(("status", "means", "`due_at`", "final"), map(_status, status.TABLE)),
        MOVES + _table(("move", "from", "to", "by", "when"), map(_move, status.MOVES)),
        REPORTS + _table(("status", "reports that move it"), map(_reports, status.TABLE)),
        ATTEMPTS + _table(("state", "means"), ((f"`{k}`", v) for k, v in status.ATTEMPTS.items())),
    ]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _status(one: status.Status) -> tuple[str, ...]:
    return f"`{one.name}`", one.meaning, one.due_at or "NULL", "yes" if one.final else ""


def _move(name: str) -> tuple[str, ...]:
    move = status.MOVES[name]
    return f"`{name}`", _names(move.sources), f"`{move.target}`", move.by, move.when


def _reports(one: status.Status) -> tuple[str, ...]:
    news = (said for said in status.REPORTED if status.applies(said, one.name))
    return f"`{one.name}`", _names(news)


def _names(names: Iterable[str]) -> str:
    """List statuses in the order of the table."""
    wanted = set(names)
    return ", ".join(f"`{one.name}`" for one in status.TABLE if one.name in wanted) or "none"


if __name__ == "__main__":
    PAGE.write_text(page())
