"""The failures of a configuration that all workers count together."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CIRCUIT = "communication_circuit"


def upgrade() -> None:
    """Add the counts and the time at which they began."""
    op.add_column(CIRCUIT, sa.Column("counted_since", sa.DateTime(timezone=True)))
    for column in ("counted_ok", "counted_failed"):
        op.add_column(CIRCUIT, sa.Column(column, sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop them."""
    for column in ("counted_since", "counted_ok", "counted_failed"):
        op.drop_column(CIRCUIT, column)
