"""The statuses of a message and the moves between them, as data. No SQL and no Flask.

The outbox builds its SQL guards from these tables. The tests explore them, and
``docs/statuses.md`` is written from them.
"""

from __future__ import annotations

from collections.abc import Iterable
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


@dataclass(frozen=True)
class Status:
    """One status: its meaning, and when it needs attention.

    ``due_at`` says what this column holds in the status, and what happens then. It is empty where
    the column is NULL: no worker looks at the message. A delivery report moves a message only to a
    higher ``rank``. A ``final`` status changes only by a person or a late report.
    """

    name: str
    rank: int
    meaning: str
    due_at: str = ""
    final: bool = False


TABLE: tuple[Status, ...] = (
    Status(
        QUEUED,
        0,
        "The message is accepted and waits to be sent.",
        "When to send it: now, at `send_at`, or at the next try. A worker then claims it for a "
        "lease of 60 seconds. If the worker does not start it within the lease, the message is "
        "due again. At `expires_at` it becomes `expired`.",
    ),
    Status(
        HELD,
        0,
        "A limit stopped the message before any try. It does not expire. A person releases or "
        "cancels it.",
    ),
    Status(
        SENDING,
        0,
        "A worker is sending the message: a request to the provider is being made, and its "
        "attempt is stored.",
        "The end of the lease, 60 seconds after the start. A worker that is alive then rescues "
        "the message.",
    ),
    Status(
        UNKNOWN,
        1,
        "The provider may have the message: it gave no answer, and repeating the request could "
        "send the message twice. A delivery report, a late answer or a person moves it on.",
        "The next request for its delivery report. Mostly NULL: nothing is left to ask.",
    ),
    Status(
        SENT,
        2,
        "The provider accepted the message.",
        "The next request for its delivery report: whenever the message has become twice as old, "
        "for 72 hours. Then NULL: the message stays `sent`, because silence is no failure.",
    ),
    Status(
        UNDELIVERED,
        3,
        "The provider reported that the message could not be delivered, or the email bounced.",
        final=True,
    ),
    Status(DELIVERED, 4, "The provider reported that the message was delivered.", final=True),
    Status(READ, 5, "The provider reported that the message was read.", final=True),
    Status(
        FAILED,
        1,
        "A person looked at an `unknown` message and dropped it.",
        final=True,
    ),
    Status(
        REJECTED,
        1,
        "The provider refused the message, or the recipient is suppressed or not allowed.",
        final=True,
    ),
    Status(EXPIRED, 1, "The message was not sent before its `expires_at`.", final=True),
    Status(CANCELLED, 1, "A person cancelled the message before it was sent.", final=True),
    Status(RECEIVED, 5, "The message came in from a recipient.", final=True),
)

STATUSES = frozenset(one.name for one in TABLE)
RANK: dict[str, int] = {one.name: one.rank for one in TABLE}
FINAL = frozenset(one.name for one in TABLE if one.final)
# The statuses in which due_at may be set.
OPEN = frozenset(one.name for one in TABLE if one.due_at)

# The statuses that a delivery report may bring.
REPORTED = frozenset({SENT, UNDELIVERED, DELIVERED, READ})

# The statuses of recipients whom a message certainly has not reached.
UNREACHED = frozenset({REJECTED, UNDELIVERED})

# The states of an attempt: how one request to a provider ended.
OPEN_ATTEMPT = "open"
ACCEPTED = "accepted"
NOT_SENT = "not_sent"
REFUSED = "rejected"
CANNOT_KNOW = "unknown"

ATTEMPTS: dict[str, str] = {
    OPEN_ATTEMPT: "The request is being made, or the worker stopped during it.",
    ACCEPTED: "The provider accepted the message.",
    NOT_SENT: "The provider certainly does not have the message; a later try may succeed.",
    REFUSED: "The provider refused the message, or does not let us in.",
    CANNOT_KNOW: "The provider may have the message: no answer came, or none that is understood.",
}

# Who makes a move.
CLAIMANT = "the worker that claimed it"
LATECOMER = "a worker whose claim has ended"
RESCUER = "any worker"
PERSON = "a person"


@dataclass(frozen=True)
class Move:
    """One allowed change of status, from any of ``sources`` to ``target``.

    A ``fenced`` move also demands the fence number that the worker got at its claim. ``by`` says
    who makes the move, and ``when`` in which case.
    """

    sources: frozenset[str]
    target: str
    fenced: bool = False
    by: str = CLAIMANT
    when: str = ""


def _by_claimant(sources: str, target: str, when: str) -> Move:
    return Move(frozenset(sources.split()), target, True, CLAIMANT, when)


def _by_rescuer(sources: str, target: str, when: str) -> Move:
    return Move(frozenset(sources.split()), target, False, RESCUER, when)


def _by_person(sources: str, target: str, when: str) -> Move:
    return Move(frozenset(sources.split()), target, False, PERSON, when)


MOVES: dict[str, Move] = {
    # From `sending` too: the commit of the start may have succeeded and its answer been lost. Only
    # this worker holds the fence.
    "start": _by_claimant("queued sending", SENDING, "before the request to the provider"),
    "accept": _by_claimant("sending", SENT, "the provider accepted the message"),
    "refuse": _by_claimant("sending", REJECTED, "the provider refused the message"),
    "postpone": _by_claimant("sending", QUEUED, "the provider certainly does not have it"),
    "doubt": _by_claimant("sending", UNKNOWN, "the provider may have it, and repeating is unsafe"),
    "repeat": _by_claimant(
        "sending",
        QUEUED,
        "the provider may have it, and ignores repeats of the same idempotency key for long enough",
    ),
    # The acceptance is a fact. It wins over what others decided meanwhile without knowing it.
    "late_truth": Move(
        frozenset({QUEUED, HELD, SENDING, UNKNOWN, FAILED, REJECTED, EXPIRED, CANCELLED}),
        SENT,
        by=LATECOMER,
        when="the provider accepted the message",
    ),
    "defer": _by_claimant(
        "queued",
        QUEUED,
        "it cannot be sent now: a rate, a paused or missing configuration, or the worker ends",
    ),
    "block": _by_claimant("queued", REJECTED, "the recipient is suppressed or not allowed"),
    "hold": _by_claimant("queued", HELD, "a limit is reached"),
    "expire": _by_claimant("queued", EXPIRED, "its `expires_at` has passed"),
    "give_up": _by_claimant(
        "queued", UNKNOWN, "an earlier try is in doubt, and it is too late to repeat it safely"
    ),
    "finish": _by_claimant(
        "queued", SENT, "an email's other recipients are suppressed; the provider has it for some"
    ),
    "rescue_repeat": _by_rescuer(
        "sending", QUEUED, "the lease ran out, and the provider ignores repeats"
    ),
    "rescue_doubt": _by_rescuer(
        "sending",
        UNKNOWN,
        "the lease ran out, and repeating is unsafe, or three workers stopped during it",
    ),
    "cancel": _by_person("queued held", CANCELLED, "`cancel`, unless an earlier try is in doubt"),
    "retry": _by_person(
        "failed rejected expired undelivered cancelled",
        QUEUED,
        "`retry`, unless an earlier try is in doubt",
    ),
    "force_retry": _by_person(
        "failed rejected expired undelivered cancelled unknown sent delivered read",
        QUEUED,
        "`retry` by force, or of an email to those recipients that refused it",
    ),
    "resolve_sent": _by_person("unknown", SENT, "`resolve` with `sent`"),
    "resolve_resend": _by_person("unknown", QUEUED, "`resolve` with `resend`"),
    "resolve_drop": _by_person("unknown", FAILED, "`resolve` with `drop`"),
    "release": _by_person("held", QUEUED, "`release`"),
}

# The moves that one SQL statement makes, each row to its own target: after the request to the
# provider, without a request, and of messages whose worker stopped.
SETTLE = ("accept", "refuse", "postpone", "doubt", "repeat")
DISMISS = ("defer", "block", "hold", "expire", "give_up", "finish")
RESCUE = ("rescue_repeat", "rescue_doubt")


def sources(moves: Iterable[str]) -> frozenset[str]:
    """Return the statuses from which each of these moves may start."""
    return frozenset.intersection(*(MOVES[move].sources for move in moves))


def targets(moves: Iterable[str]) -> frozenset[str]:
    """Return the statuses to which one of these moves leads."""
    return frozenset(MOVES[move].target for move in moves)


def applies(reported: str, current: str) -> bool:
    """Tell whether a delivery report of ``reported`` moves a message in status ``current``.

    Only a report that says more than the message knows does. A message that waits, or is being
    sent, may be on a second try under the same provider id. A report of `sent` or `undelivered` is
    then about the first try, and does not apply.
    """
    if reported not in REPORTED:
        return False
    if current in (QUEUED, HELD, SENDING):
        return RANK[reported] >= RANK[DELIVERED]
    return RANK[reported] > RANK[current]


# `applies` for SQL: the lowest rank of a report that moves a message in each status.
THRESHOLD: dict[str, int] = {
    current: min(
        (RANK[one] for one in REPORTED if applies(one, current)), default=max(RANK.values()) + 1
    )
    for current in RANK
}
