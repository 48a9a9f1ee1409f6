"""Take messages in: into the caller's transaction or one of our own, once for each idempotency key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from uuid import uuid4

from sqlalchemy import event
from sqlalchemy.engine import Connection

from ..configs import routes
from ..configs.state import State
from ..email import records
from ..errors import IdempotencyConflict
from ..providers import standin
from ..storage.crashpoints import crash_point
from ..storage.dialect import Dialect
from . import outbox

# Where a session remembers whom to tell when it commits.
RINGS = "communication_rings"

Draft = Mapping[str, Any]


def accept(
    state: State,
    channel: str,
    drafts: Sequence[Draft],
    key: str | int | None,
    session: Any = None,
    written: Sequence[records.Draft] = (),
) -> list[str]:
    """Store messages as ``queued`` and return their uuids, in order.

    ``drafts`` have the columns of ``outbox.NEW`` save uuid, channel, config_id and body_hash, and
    may have a ``key`` of their own; ``written`` are the mails that belong to them, if they are
    emails. With ``session`` they stand or fall with that session's transaction; without it they are
    committed when this returns. Raises :class:`ConfigNotFound`, :class:`IdempotencyConflict`,
    :class:`SessionConflict`.
    """
    if not drafts:
        return []
    with _transaction(state, session) as connection:
        keys = [key if one.get("key") is None else one["key"] for one in drafts]
        chosen = {one: routes.choose(connection, channel, one) for one in dict.fromkeys(keys)}
        dialect = state.database.dialect
        rows = [
            _row(channel, chosen[one], draft, dialect)
            for one, draft in zip(keys, drafts, strict=True)
        ]
        uuids, new = _insert(connection, channel, rows)
        records.store(
            connection,
            [
                records.addressed(mail, row["uuid"], row["sender"])
                for row, mail in zip(rows, written, strict=False)
                if row["uuid"] in new
            ],
        )
        crash_point("accept.written")
    standin.accepted(state, [uuid for uuid in uuids if uuid in new], session)
    if session is None:
        crash_point("accept.committed")
        state.ring()
        crash_point("accept.rung")
    else:
        _ring_after_commit(session, state)
    return uuids


def _transaction(state: State, session: Any) -> AbstractContextManager[Connection]:
    if session is None:
        return state.database.write()
    return state.database.joined(session)


def _row(channel: str, config_id: int, draft: Draft, dialect: Dialect) -> dict[str, Any]:
    row = {"uuid": str(uuid4()), "channel": channel, "config_id": config_id, "body_hash": None}
    row |= {name: dialect.time(draft[name]) for name in ("send_at", "expires_at") if draft[name]}
    if draft.get("idempotency_key") is not None:
        row["body_hash"] = draft.get("body_hash") or _hash(draft)
    row = {**draft, **row}
    row.pop("key", None)
    return row


def _hash(draft: Draft) -> str:
    said = [draft["destination"], draft["body"], draft.get("sender"), draft.get("meta")]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _insert(
    connection: Connection, channel: str, rows: Sequence[dict[str, Any]]
) -> tuple[list[str], set[str]]:
    # Looked up before anything is written, so that a conflict leaves the caller's transaction
    # clean.
    before = _before(connection, channel, rows)
    fresh = [row for row in rows if row["idempotency_key"] not in before]
    new = outbox.accept(connection, fresh) if fresh else set()
    if len(new) < len(fresh):
        before = _before(connection, channel, rows)
    uuids = [row["uuid"] if row["uuid"] in new else before[row["idempotency_key"]] for row in rows]
    return uuids, new


def _before(
    connection: Connection, channel: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str | None, str]:
    keyed = {row["idempotency_key"]: row for row in rows if row["idempotency_key"] is not None}
    if not keyed:
        return {}
    found = outbox.accepted_before(connection, channel, keyed)
    for row in rows:
        earlier = found.get(row["idempotency_key"])
        if earlier is not None and earlier.body_hash != row["body_hash"]:
            raise IdempotencyConflict(
                f"the idempotency key {row['idempotency_key']!r} was used for another message, "
                f"{earlier.uuid}; use a new key for a new message"
            )
    return {key: earlier.uuid for key, earlier in found.items()}


def _ring_after_commit(session: Any, state: State) -> None:
    real = session.registry() if hasattr(session, "registry") else session
    if RINGS not in real.info:
        real.info[RINGS] = []
        event.listen(real, "after_commit", _committed)
        event.listen(real, "after_soft_rollback", _rolled_back)
    if state not in real.info[RINGS]:
        real.info[RINGS].append(state)


def _committed(session: Any) -> None:
    # A savepoint's end is no commit: the bell would ring for rows nobody can see yet.
    if session.in_nested_transaction():
        return
    states, session.info[RINGS] = session.info[RINGS], []
    for state in states:
        state.ring()


def _rolled_back(session: Any, previous: Any) -> None:
    if not previous.nested:
        session.info[RINGS] = []
