"""Pages are in the order of time: indexes that end in it, and so serve periods and configurations too."""

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
    """Make them anew."""
    _make_anew({**COLUMNS, "config": ["channel", "config_id", "status"]}, ["created_at", "id"])


def downgrade() -> None:
    """Go back to the order of the ids."""
    _make_anew(COLUMNS, ["id"])


def _make_anew(columns: dict[str, list[str]], order: list[str]) -> None:
    for name, first in columns.items():
        index = f"ix_{MESSAGE}_{name}"
        op.drop_index(index, MESSAGE)
        op.create_index(index, MESSAGE, [*first, *order])
