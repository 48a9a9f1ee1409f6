"""Indexes of pages, by time instead of by id."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MESSAGE = "communication_message"
COLUMNS = {
    "status": ["channel", "status"],
    "destination": ["channel", "destination"],
    "config": ["channel", "config_id"],
}


def upgrade() -> None:
    """Create the indexes again, in the order of time."""
    _create_again({**COLUMNS, "config": ["channel", "config_id", "status"]}, ["created_at", "id"])


def downgrade() -> None:
    """Create the indexes again, in the order of the ids."""
    _create_again(COLUMNS, ["id"])


def _create_again(columns: dict[str, list[str]], order: list[str]) -> None:
    for name, first in columns.items():
        index = f"ix_{MESSAGE}_{name}"
        op.drop_index(index, MESSAGE)
        op.create_index(index, MESSAGE, [*first, *order])
