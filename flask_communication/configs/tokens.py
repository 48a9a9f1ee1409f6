"""Bearer tokens for machines, and the actions that their scopes allow.

A token is shown once and stored as a hash. ``authorize`` gets the same names of actions.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, select, update

from ..errors import InvalidQuery, TokenNotFound
from ..storage.models import Token
from .state import State

PREFIX = "fc"
# Storing the time of every use would make each read a write.
USED_AT_MOST_EVERY = timedelta(minutes=1)
MAX_LIFETIME = timedelta(days=36_500)

# What may be allowed or refused: action -> meaning.
ACTIONS = {
    "config.read": "see the configurations, without their secrets",
    "config.write": "store and change configurations",
    "config.delete": "delete configurations",
    "message.send": "send messages",
    "message.retry": "send a message again",
    "message.cancel": "stop a message that has not left",
    "message.resolve": "say what became of an unknown message",
    "message.release": "let a held message pass",
    "message.read": "read messages and their delivery reports",
    "inbox.sync": "read the mailboxes now",
    "suppression.read": "see who must not be written to",
    "suppression.write": "put recipients on that list",
    "suppression.delete": "take recipients off that list",
    "health.read": "see the details of the health check",
    "metrics.read": "read the metrics",
    "openapi.read": "read the description of the REST interface",
}


def all_scopes() -> list[str]:
    """Return every scope of a token: each action, a group (``message.*``), and all (``*``)."""
    groups = sorted({f"{action.partition('.')[0]}.*" for action in ACTIONS})
    return [*ACTIONS, *groups, "*"]


def create(
    state: State, name: str, scopes: Iterable[str], expires_in: timedelta | None = None
) -> str:
    """Store a token and return it; it cannot be read again.

    ``scopes`` are actions such as ``message.send``, or ``message.*``, or ``*``. Raises
    :class:`InvalidQuery` without a name or scope, for an unknown scope, and for an ``expires_in``
    that is not in the future.
    """
    wanted = sorted(set(scopes))
    if not wanted or not name.strip():
        raise InvalidQuery({"scopes": ["a token needs a name and at least one scope"]})
    known = all_scopes()
    unknown = ", ".join(repr(scope) for scope in wanted if scope not in known)
    if unknown:
        raise InvalidQuery({"scopes": [f"{unknown} allows nothing; scopes are {', '.join(known)}"]})
    if expires_in is not None and not timedelta(0) < expires_in <= MAX_LIFETIME:
        raise InvalidQuery(
            {"expires_in": [f"must be above 0, and at most {MAX_LIFETIME.days} days"]}
        )
    public, secret, now = secrets.token_hex(8), secrets.token_urlsafe(32), datetime.now(UTC)
    with state.database.write() as connection:
        connection.execute(
            insert(Token).values(
                name=name[:100],
                public_id=public,
                secret_hash=_hash(secret),
                scopes=wanted,
                created_at=now,
                expires_at=expires_in and now + expires_in,
            )
        )
    return f"{PREFIX}_{public}_{secret}"


def listing(state: State) -> list[Token]:
    """Return all tokens, without their secrets, the oldest first."""
    with state.database.session() as session:
        return list(session.scalars(select(Token).order_by(Token.id)))


def revoke(state: State, public_id: str) -> None:
    """Revoke a token; raise :class:`TokenNotFound`."""
    with state.database.write() as connection:
        found = connection.execute(
            update(Token)
            .where(Token.public_id == public_id, Token.revoked_at.is_(None))
            .values(revoked_at=datetime.now(UTC))
        )
        if not found.rowcount:
            raise TokenNotFound(f"there is no valid token {public_id}")


def check(state: State, presented: str) -> Token | None:
    """Return the token that was presented, or None if it is unknown, revoked or expired."""
    prefix, _, rest = presented.partition("_")
    public, _, secret = rest.partition("_")
    if not (public.isascii() and public.isalnum()):
        # No id looks like this, and not every such text is allowed in a query.
        return None
    with state.database.session() as session:
        token = session.scalar(select(Token).where(Token.public_id == public[:16]))
    # A hash is always compared, so that the time of the answer does not tell which ids exist.
    expected = token.secret_hash if token else _hash("")
    same = hmac.compare_digest(expected, _hash(secret))
    if token is None or not same or prefix != PREFIX or not _is_valid(token):
        return None
    _note_use(state, token)
    return token


def allows(token: Token, action: str) -> bool:
    """Tell whether the token's scopes cover an action."""
    room = action.partition(".")[0]
    return any(scope in (action, f"{room}.*", "*") for scope in token.scopes)


def _hash(secret: str) -> str:
    # The secret has 256 random bits, so a plain hash is enough.
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _is_valid(token: Token) -> bool:
    expired = token.expires_at is not None and token.expires_at <= datetime.now(UTC)
    return token.revoked_at is None and not expired


def _note_use(state: State, token: Token) -> None:
    now = datetime.now(UTC)
    if token.last_used_at is None or now - token.last_used_at > USED_AT_MOST_EVERY:
        with state.database.write() as connection:
            connection.execute(update(Token).where(Token.id == token.id).values(last_used_at=now))
