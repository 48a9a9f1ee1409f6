"""``token …`` and ``generate-key``: bearer tokens, and keys for encryption."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import click

from ..configs import tokens
from ..configs.state import current
from ..errors import InvalidQuery
from .command import communication, explained, table


@communication.group("token")
def token() -> None:
    """Bearer tokens, for machines that use the REST interface."""


@token.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="An action, message.*, or *.")
@click.option("--days", type=float, help="It expires after so many days; without it, never.")
@explained
def create_token(name: str, scopes: Sequence[str], days: float | None) -> None:
    """Create a token and print it, once."""
    # This refuses nan too, and more days than a date can hold.
    if days is not None and not 0 < days <= tokens.MAX_LIFETIME.days:
        raise InvalidQuery(
            {"days": [f"must be a number above 0, at most {tokens.MAX_LIFETIME.days}"]}
        )
    lasts = None if days is None else timedelta(days=days)
    click.echo(tokens.create(current(), name, scopes, lasts))


@token.command("list")
@explained
def list_tokens() -> None:
    """List the tokens, without their secrets."""
    table(
        ("id", "name", "scopes", "created", "last used", "state"),
        [
            (
                one.public_id,
                one.name,
                " ".join(one.scopes),
                f"{one.created_at:%F %T}",
                f"{one.last_used_at:%F %T}" if one.last_used_at else "never",
                "revoked"
                if one.revoked_at
                else f"until {one.expires_at:%F}"
                if one.expires_at
                else "",
            )
            for one in tokens.listing(current())
        ],
    )


@token.command("revoke")
@click.argument("token_id")
@explained
def revoke_token(token_id: str) -> None:
    """Revoke a token: it allows nothing any more."""
    tokens.revoke(current(), token_id)
    click.echo(f"token {token_id} is revoked")


@communication.command("generate-key")
def generate_key() -> None:
    """Print a new key for COMMUNICATION_ENCRYPTION_KEYS."""
    from cryptography.fernet import Fernet

    click.echo(Fernet.generate_key().decode())
