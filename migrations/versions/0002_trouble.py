"""Fallbacks, limits, suppressions and heartbeats."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Time = sa.DateTime(timezone=True)
MESSAGE = "communication_message"


def upgrade() -> None:
    """Create the tables and columns."""
    op.add_column(MESSAGE, sa.Column("route_id", sa.Integer))
    op.add_column(MESSAGE, sa.Column("admitted_at", Time))
    op.execute(f"UPDATE {MESSAGE} SET route_id = config_id")
    _circuits()
    _usage()
    _suppressions()
    _heartbeats()


def downgrade() -> None:
    """Drop them, and all that is in them."""
    for table in ("heartbeat", "suppression", "usage", "circuit"):
        op.drop_table(f"communication_{table}")
    for column in ("admitted_at", "route_id"):
        op.drop_column(MESSAGE, column)


def _circuits() -> None:
    op.create_table(
        "communication_circuit",
        sa.Column("config_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("state", sa.String(8), nullable=False, server_default="closed"),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("opens", sa.Integer, nullable=False, server_default="0"),
        sa.Column("until", Time),
        sa.Column("reason", sa.String(500)),
        sa.Column("changed_at", Time, nullable=False),
        sa.Column("full_at", Time),
        sa.Column("queued_until", Time),
        sa.PrimaryKeyConstraint("config_id", name="pk_communication_circuit"),
        sa.ForeignKeyConstraint(
            ["config_id"],
            ["communication_config.id"],
            name="fk_communication_circuit_config_id_communication_config",
        ),
    )


def _usage() -> None:
    op.create_table(
        "communication_usage",
        sa.Column("scope", sa.String(80), nullable=False),
        sa.Column("period", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("alerted", sa.Boolean, nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("scope", "period", name="pk_communication_usage"),
    )
    op.create_index("ix_communication_usage_expires_at", "communication_usage", ["expires_at"])


def _suppressions() -> None:
    op.create_table(
        "communication_suppression",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("channel", sa.String(10), nullable=False),
        sa.Column("destination", sa.String(320), nullable=False),
        sa.Column("scope", sa.String(330), nullable=False, server_default=""),
        sa.Column("reason", sa.String(20), nullable=False),
        sa.Column("detail", sa.String(500)),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_communication_suppression"),
        sa.UniqueConstraint(
            "channel",
            "destination",
            "scope",
            name="uq_communication_suppression_channel_destination_scope",
        ),
    )


def _heartbeats() -> None:
    op.create_table(
        "communication_heartbeat",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("seen_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_communication_heartbeat"),
    )
