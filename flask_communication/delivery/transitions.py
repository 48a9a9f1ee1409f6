"""What the outbox reads and writes: one frozen dataclass for each kind of row.

The fields of a dataclass are the columns of its SQL statement, in this order: see
:func:`.dialect.columns_of`. ``fence`` is the number that a worker got at its claim; a row that has
another one by now belongs to somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..storage.dialect import from_json
from ..storage.models import status

_MOMENT = {"sql": "timestamptz"}


@dataclass(frozen=True)
class NewMessage:
    """A message to insert as ``queued``. Moments are written as the database stores them."""

    uuid: str
    channel: str
    destination: str
    sender: str | None
    body: str
    config_id: int
    priority: int
    send_at: str | None = field(metadata=_MOMENT)
    expires_at: str | None = field(metadata=_MOMENT)
    lifetime: float
    idempotency_key: str | None
    body_hash: str | None
    meta: Mapping[str, Any] | None


@dataclass(frozen=True)
class Claim:
    """A due message that one worker has claimed.

    ``closed``: an earlier attempt may have arrived, and may no longer be repeated. ``stale``: its
    ``expires_at`` is past. ``age`` is the seconds since its first attempt, None before it.
    """

    id: int
    fence: int
    uuid: str
    channel: str
    destination: str
    sender: str | None
    body: str
    config_id: int | None
    route_id: int | None
    priority: int
    provider_ref: str | None = None
    resends: int = 0
    tries: int = 0
    meta: object = None
    # Moments, or None: when limits let it pass, and until when it may be repeated.
    admitted_at: object = None
    repeat_until: object = None
    closed: bool = False
    stale: bool = False
    age: float | None = None

    @property
    def key(self) -> str:
        """The idempotency key; it changes only when a person decides to send again."""
        return self.uuid if not self.resends else f"{self.uuid}#{self.resends + 1}"

    @property
    def in_doubt(self) -> bool:
        """Whether an earlier attempt may have arrived."""
        return self.repeat_until is not None

    @property
    def is_retry(self) -> bool:
        """Whether the provider knows the message already, under an id of its own."""
        return bool(self.provider_ref and self.resends)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller stored with the message."""
        return from_json(self.meta) or {}


@dataclass(frozen=True)
class Start:
    """A claimed message that is about to be sent, by which configuration and under which key."""

    id: int
    fence: int
    config_id: int
    key: str


@dataclass(frozen=True)
class RecipientOutcome:
    """How sending ended for one recipient of an email, where it differs from the message's."""

    id: int
    address: str
    status: str
    error: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Settlement:
    """How sending a message ended: the status it moves to, and the outcome of its attempt.

    ``delay`` is the seconds until it is due again, None for never; ``repeat_for`` the seconds in
    which the provider ignores a repetition.
    """

    id: int
    fence: int
    uuid: str
    channel: str
    status: str
    state: str
    delay: float | None = None
    repeat_for: float | None = None
    ref: str | None = None
    extra: Mapping[str, Any] | None = None
    error: str | None = None
    code: str | None = None
    http_status: int | None = None
    recipients: tuple[RecipientOutcome, ...] = field(default=(), metadata={"sql": None})


@dataclass(frozen=True)
class Dismissal:
    """A claimed message that is not sent now: the status it moves to, and when it is due again."""

    id: int
    fence: int
    uuid: str
    channel: str
    status: str
    delay: float | None = None
    error: str | None = None

    @classmethod
    def of(
        cls, claim: Claim, to: str, error: str | None = None, delay: float | None = None
    ) -> Dismissal:
        """Return the dismissal of a claim."""
        return cls(claim.id, claim.fence, claim.uuid, claim.channel, to, delay, error)

    @classmethod
    def returning(cls, claim: Claim) -> Dismissal:
        """Return the claim to the queue; any worker may claim it at once."""
        return cls.of(claim, status.QUEUED, delay=0.0)


@dataclass(frozen=True)
class Stranded:
    """A message whose worker stopped while sending it."""

    id: int
    fence: int
    uuid: str
    channel: str
    config_id: int | None
    crashes: int
    age: float | None
