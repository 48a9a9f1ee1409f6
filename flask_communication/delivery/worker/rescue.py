"""Take up the messages whose worker stopped while sending them."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Row

from ...configs.routes import Route, Routes
from ...configs.state import State
from ...storage import events
from ...storage.crashpoints import crash_point
from .. import outbox, outcomes
from ..announce import announce
from .sending import learn

log = logging.getLogger(__name__)

LEARN_FOR_AT_MOST = 600.0


def rescue(state: State, routes: Routes, pool: ThreadPoolExecutor) -> int:
    """Take up the messages whose worker stopped while sending them; return how many."""
    with state.database.read() as connection:
        rows = outbox.stranded(connection)
        known = routes.load(connection, {row.config_id for row in rows})
    if not rows:
        return 0
    learn(pool, known.values())
    found = [
        outcomes.stranding(row, known.get(row.config_id))
        for row in rows
        if _decidable(row, known.get(row.config_id))
    ]
    crash_point("rescue.found")
    with state.database.write() as connection:
        moved = outbox.rescue(connection, found)
        mine = [row for row in found if row["id"] in moved]
        for row in mine:
            events.note(connection, row["id"], "rescued", f"{row['error']}: {row['status']}")
    crash_point("rescue.committed", mine)
    if mine:
        log.warning("took up %s messages whose worker had stopped", len(mine))
    announce(state.app, mine)
    return len(mine)


def _decidable(row: Row[Any], route: Route | None) -> bool:
    """Tell whether it is known, or hopeless to wait until it is, if the provider ignores repeats."""
    if route is None or route.provider is None or route.provider.is_known:
        return True
    return (row.age or 0.0) > LEARN_FOR_AT_MOST
