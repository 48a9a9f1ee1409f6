"""The life of a message as data: statuses, ranks, moves, outcomes. No SQL, no Flask.

Both the SQL of the outbox and the tests that explore it are built from these tables, so what is
proved of one holds for the other.
"""

from __future__ import annotations

from dataclasses import dataclass

QUEUED = "queued"
HELD = "held"
SENDING = "sending"
UNKNOWN = "unknown"
SENT = "sent"
DELIVERED = "delivered"
READ = "read"
UNDELIVERED = "undelivered"
FAILED = "failed"
REJECTED = "rejected"
EXPIRED = "expired"
CANCELLED = "cancelled"
RECEIVED = "received"

# How much a status says about the world. Reports only ever move a message up.
RANK: dict[str, int] = {
    QUEUED: 0,
    HELD: 0,
    SENDING: 0,
    CANCELLED: 1,
    EXPIRED: 1,
    FAILED: 1,
    REJECTED: 1,
    UNKNOWN: 1,
    SENT: 2,
    UNDELIVERED: 3,
    DELIVERED: 4,
    READ: 5,
    RECEIVED: 5,
}
STATUSES = frozenset(RANK)

# Nobody needs to look at these again unless a person or a late report says so.
FINAL = frozenset({DELIVERED, READ, UNDELIVERED, FAILED, REJECTED, EXPIRED, CANCELLED, RECEIVED})
# Rows in these statuses may carry a due_at.
OPEN = frozenset({QUEUED, SENDING, SENT, UNKNOWN})
# The statuses a delivery report may bring.
REPORTED = frozenset({SENT, UNDELIVERED, DELIVERED, READ})

# The statuses of recipients that a message certainly has not reached.
UNREACHED = frozenset({REJECTED, UNDELIVERED})

# Outcomes of one call to a provider, and so states of an Attempt (which begins `open`).
OPEN_ATTEMPT = "open"
ACCEPTED = "accepted"
NOT_SENT = "not_sent"
REFUSED = "rejected"
CANNOT_KNOW = "unknown"
OUTCOMES = frozenset({ACCEPTED, NOT_SENT, REFUSED, CANNOT_KNOW})


@dataclass(frozen=True)
class Move:
    """One allowed change of status: from any of ``sources`` to ``target``.

    ``fenced`` moves also demand the fence number that the mover was given at its claim.
    """

    sources: frozenset[str]
    target: str
    fenced: bool = False


def _move(sources: str, target: str, *, fenced: bool = False) -> Move:
    return Move(frozenset(sources.split()), target, fenced)


MOVES: dict[str, Move] = {
    # From `sending` too: the answer to our own commit may have got lost, and only we hold the
    # fence.
    "start": _move("queued sending", SENDING, fenced=True),
    "accept": _move("sending", SENT, fenced=True),
    "refuse": _move("sending", REJECTED, fenced=True),
    "postpone": _move("sending", QUEUED, fenced=True),
    "doubt": _move("sending", UNKNOWN, fenced=True),
    # The provider dedupes on our key and we are inside its window: repeating is safe.
    "repeat": _move("sending", QUEUED, fenced=True),
    # A stale worker returns with *accepted*: it rang, so it wins over whatever we guessed.
    "late_truth": _move("queued held sending unknown failed rejected expired cancelled", SENT),
    # The provider cannot even be called (blocked, unknown package): a claimed row waits.
    "defer": _move("queued", QUEUED, fenced=True),
    "block": _move("queued", REJECTED, fenced=True),
    "hold": _move("queued", HELD, fenced=True),
    "expire": _move("queued", EXPIRED, fenced=True),
    # In doubt from an earlier try, and the provider's window for repeating it has closed.
    "give_up": _move("queued", UNKNOWN, fenced=True),
    # Every other recipient of an email is suppressed, and the provider has it for those before.
    "finish": _move("queued", SENT, fenced=True),
    # A lease ran out while dialling.
    "rescue_repeat": _move("sending", QUEUED),
    "rescue_doubt": _move("sending", UNKNOWN),
    "cancel": _move("queued held", CANCELLED),
    "retry": _move("failed rejected expired undelivered cancelled", QUEUED),
    "force_retry": _move(
        "failed rejected expired undelivered cancelled unknown sent delivered read", QUEUED
    ),
    "resolve_sent": _move("unknown", SENT),
    "resolve_resend": _move("unknown", QUEUED),
    "resolve_drop": _move("unknown", FAILED),
    "release": _move("held", QUEUED),
}


# The rank a report must have to move a message from each status. One that waits or is being sent
# may be on a second try of the same provider id, so only news that ends it counts: the rest is old.
THRESHOLD: dict[str, int] = {
    status: RANK[DELIVERED] if status in (QUEUED, HELD, SENDING) else rank + 1
    for status, rank in RANK.items()
}


def applies(reported: str, current: str) -> bool:
    """Tell whether a report of ``reported`` may move a message that stands at ``current``."""
    return reported in REPORTED and RANK[reported] >= THRESHOLD[current]
