"""Rescue messages whose worker stopped while sending them."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from ...configs.routes import Route, Routes
from ...configs.state import State
from ...signals import announce
from ...storage import events
from ...storage.crashpoints import crash_point
from .. import outbox, outcomes
from ..transitions import Stranded
from .sending import learn

log = logging.getLogger(__name__)

LEARN_FOR_AT_MOST = 600.0


def rescue(state: State, routes: Routes, threads: ThreadPoolExecutor) -> int:
    """Move on the messages whose worker stopped while sending them; return how many."""
    with state.database.read() as connection:
        messages = outbox.stranded(connection)
        known = routes.load(connection, {one.config_id for one in messages})
    if not messages:
        return 0
    learn(threads, known.values())
    found = [
        outcomes.stranding(one, known.get(one.config_id or 0))
        for one in messages
        if _decidable(one, known.get(one.config_id or 0))
    ]
    crash_point("rescue.found")
    with state.database.write() as connection:
        moved = outbox.rescue(connection, found)
        mine = [one for one in found if one.id in moved]
        for one in mine:
            events.note(connection, one.id, "rescued", f"{one.error}: {one.status}")
    crash_point("rescue.committed", mine)
    if mine:
        log.warning("rescued %s messages whose worker had stopped", len(mine))
    announce(state.app, mine)
    return len(mine)


def _decidable(message: Stranded, route: Route | None) -> bool:
    """Tell whether the provider has said if it ignores repeats, or will not say in time."""
    if route is None or route.capabilities.known:
        return True
    return (message.age or 0.0) > LEARN_FOR_AT_MOST
