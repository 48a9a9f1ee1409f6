"""Host applications in tests: configure them, let them work, look into their database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from sqlalchemy import event, text

from flask_communication.configs import store
from flask_communication.configs.state import State, state_of
from flask_communication.delivery.worker.worker import Worker
from flask_communication.providers.base import Provider

# The fixture make_app: ``make_app(url, authorize=…, db=…, **config)``.
MakeApp = Callable[..., Flask]
# The telephone number that most tests write to.
TO = "+919999911111"


def allow(_action: str, _resource: Any = None) -> bool:
    """Allow everybody everything: what ``authorize`` is in most tests."""
    return True


def install(app: Flask, provider: Provider, **fields: Any) -> int:
    """Make a provider known to an application and give it a configuration; return its id."""
    state = state_of(app)
    state.registry.register(provider)
    return store.create(
        state,
        {"type": "sms", "provider": "", "provider_pkg_name": provider.name, "config": {}, **fields},
    )


def work(app: Flask, **kwargs: Any) -> int:
    """Do all that is due now, in this thread."""
    with app.app_context():
        return Worker(state_of(app)).burst(**kwargs)


@contextmanager
def statements_of(app: Flask) -> Iterator[list[str]]:
    """Give a list that fills with the SQL of our own transactions, as long as the block lasts."""
    said: list[str] = []

    def hear(_conn: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        said.append(statement)

    engine = state_of(app).database.engine
    event.listen(engine, "before_cursor_execute", hear)
    try:
        yield said
    finally:
        event.remove(engine, "before_cursor_execute", hear)


def count_statuses(app: Flask) -> dict[str, int]:
    """Count the messages of each status."""
    with state_of(app).database.read() as connection:
        return dict(Counter(connection.scalars(text("SELECT status FROM communication_message"))))


def make_due(app: Flask, **columns: Any) -> None:
    """Let the time of every open message have come; set other columns besides."""
    state: State = state_of(app)
    sets = ", ".join(["due_at = '2020-01-01 00:00:00.000000'", *(f"{k} = :{k}" for k in columns)])
    with state.database.write() as connection:
        connection.execute(
            text(f"UPDATE communication_message SET {sets} WHERE due_at IS NOT NULL"), columns
        )
