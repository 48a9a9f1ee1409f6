"""The first tables: configurations, messages, attempts, events, tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Time = sa.DateTime(timezone=True)
BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    _configs()
    _messages()
    _attempts()
    _events()
    _tokens()


def downgrade() -> None:
    """Drop the tables, and all that is in them."""
    for table in ("token", "event", "attempt", "message", "config"):
        op.drop_table(f"communication_{table}")


def _partial(name: str, table: str, columns: list[str], where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(
        name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition
    )


def _configs() -> None:
    op.create_table(
        "communication_config",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("provider", sa.String(100), nullable=False),
        sa.Column("provider_pkg_name", sa.String(200), nullable=False),
        sa.Column("key", sa.String(100)),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("is_default", sa.Boolean, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("fallback", sa.JSON, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("rate_per_second", sa.Float),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("deleted_at", Time),
        sa.PrimaryKeyConstraint("id", name="pk_communication_config"),
    )
    table = "communication_config"
    _partial(
        "uq_communication_config_key",
        table,
        ["type", "key"],
        "deleted_at IS NULL AND key IS NOT NULL",
        unique=True,
    )
    _partial(
        "uq_communication_config_default",
        table,
        ["type"],
        "deleted_at IS NULL AND is_default",
        unique=True,
    )


def _messages() -> None:
    table = "communication_message"
    op.create_table(
        table,
        sa.Column("id", BigId, nullable=False),
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("channel", sa.String(10), nullable=False),
        sa.Column("direction", sa.String(3), nullable=False, server_default="out"),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("destination", sa.String(320), nullable=False),
        sa.Column("sender", sa.String(320)),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("config_id", sa.Integer),
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default="5"),
        sa.Column("due_at", Time),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
        sa.Column("resends", sa.Integer, nullable=False, server_default="0"),
        sa.Column("first_tried_at", Time),
        sa.Column("repeat_until", Time),
        sa.Column("expires_at", Time, nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("body_hash", sa.String(64)),
        sa.Column("provider_ref", sa.String(255)),
        sa.Column("extra", sa.JSON),
        sa.Column("meta", sa.JSON),
        sa.Column("error", sa.String(500)),
        sa.Column("error_code", sa.String(50)),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("sent_at", Time),
        sa.PrimaryKeyConstraint("id", name="pk_communication_message"),
        sa.UniqueConstraint("uuid", name="uq_communication_message_uuid"),
        sa.ForeignKeyConstraint(
            ["config_id"],
            ["communication_config.id"],
            name="fk_communication_message_config_id_communication_config",
        ),
    )
    _partial(
        "ix_communication_message_due",
        table,
        ["status", "priority", "due_at"],
        "due_at IS NOT NULL",
    )
    _partial(
        "uq_communication_message_idempotency",
        table,
        ["channel", "idempotency_key"],
        "idempotency_key IS NOT NULL",
        unique=True,
    )
    _partial(
        "ix_communication_message_ref",
        table,
        ["config_id", "provider_ref"],
        "provider_ref IS NOT NULL",
    )
    for name, column in (
        ("status", "status"),
        ("destination", "destination"),
        ("config", "config_id"),
    ):
        op.create_index(f"ix_communication_message_{name}", table, ["channel", column, "id"])


def _attempts() -> None:
    op.create_table(
        "communication_attempt",
        sa.Column("message_id", BigId, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("config_id", sa.Integer),
        sa.Column("key", sa.String(60), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("ended_at", Time),
        sa.Column("http_status", sa.SmallInteger),
        sa.Column("provider_ref", sa.String(255)),
        sa.Column("error", sa.String(500)),
        sa.Column("error_code", sa.String(50)),
        sa.PrimaryKeyConstraint("message_id", "fence", name="pk_communication_attempt"),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["communication_message.id"],
            name="fk_communication_attempt_message_id_communication_message",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["config_id"],
            ["communication_config.id"],
            name="fk_communication_attempt_config_id_communication_config",
        ),
    )


def _events() -> None:
    op.create_table(
        "communication_event",
        sa.Column("id", BigId, nullable=False),
        sa.Column("message_id", BigId),
        sa.Column("config_id", sa.Integer),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("status", sa.String(12)),
        sa.Column("provider_ref", sa.String(255)),
        sa.Column("dedupe_key", sa.String(64), nullable=False),
        sa.Column("detail", sa.String(500)),
        sa.Column("code", sa.String(50)),
        sa.Column("occurred_at", Time),
        sa.Column("received_at", Time, nullable=False),
        sa.Column("applied", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_communication_event"),
        sa.UniqueConstraint("dedupe_key", name="uq_communication_event_dedupe_key"),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["communication_message.id"],
            name="fk_communication_event_message_id_communication_message",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["config_id"],
            ["communication_config.id"],
            name="fk_communication_event_config_id_communication_config",
        ),
    )
    op.create_index("ix_communication_event_message_id", "communication_event", ["message_id"])


def _tokens() -> None:
    op.create_table(
        "communication_token",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("public_id", sa.String(16), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("expires_at", Time),
        sa.Column("revoked_at", Time),
        sa.Column("last_used_at", Time),
        sa.PrimaryKeyConstraint("id", name="pk_communication_token"),
        sa.UniqueConstraint("public_id", name="uq_communication_token_public_id"),
    )
