"""Email: mails, their recipients and files, and how far mailboxes have been read."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Time = sa.DateTime(timezone=True)
BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    _files()
    _mails()
    _recipients()
    _attachments()
    _mailboxes()


def downgrade() -> None:
    """Drop them, and all that is in them."""
    for table in ("mailbox", "attachment", "recipient", "mail", "file"):
        op.drop_table(f"communication_{table}")


def _foreign(table: str, column: str, other: str, cascade: bool = False) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column],
        [other],
        name=f"fk_communication_{table}_{column}_{other.split('.')[0]}",
        ondelete="CASCADE" if cascade else None,
    )


def _partial(table: str, column: str, unique: bool = False) -> None:
    condition = sa.text(f"{column} IS NOT NULL")
    op.create_index(
        f"{'uq' if unique else 'ix'}_communication_{table}_{column}",
        f"communication_{table}",
        [column],
        unique=unique,
        postgresql_where=condition,
        sqlite_where=condition,
    )


def _files() -> None:
    op.create_table(
        "communication_file",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_communication_file"),
    )


def _mails() -> None:
    op.create_table(
        "communication_mail",
        sa.Column("message_id", BigId, nullable=False, autoincrement=False),
        sa.Column("rfc_message_id", sa.String(998)),
        sa.Column("subject", sa.String(998), nullable=False),
        sa.Column("html", sa.Text),
        sa.Column("mailboxes", sa.JSON, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("in_reply_to", sa.String(998)),
        sa.Column("refs", sa.JSON, nullable=False),
        sa.Column("thread_id", BigId),
        sa.Column("raw_sha256", sa.String(64)),
        sa.Column("problem", sa.String(500)),
        sa.Column("arrival", sa.String(64)),
        sa.PrimaryKeyConstraint("message_id", name="pk_communication_mail"),
        _foreign("mail", "message_id", "communication_message.id", cascade=True),
        _foreign("mail", "raw_sha256", "communication_file.sha256"),
    )
    _partial("mail", "rfc_message_id")
    _partial("mail", "thread_id")
    _partial("mail", "arrival", unique=True)


def _recipients() -> None:
    op.create_table(
        "communication_recipient",
        sa.Column("message_id", BigId, nullable=False, autoincrement=False),
        sa.Column("address", sa.String(320), nullable=False),
        sa.Column("kind", sa.String(3), nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("status", sa.String(12)),
        sa.Column("error", sa.String(500)),
        sa.Column("error_code", sa.String(50)),
        sa.PrimaryKeyConstraint("message_id", "address", name="pk_communication_recipient"),
        _foreign("recipient", "message_id", "communication_mail.message_id", cascade=True),
    )
    op.create_index(
        "ix_communication_recipient_address", "communication_recipient", ["address", "message_id"]
    )


def _attachments() -> None:
    op.create_table(
        "communication_attachment",
        sa.Column("message_id", BigId, nullable=False, autoincrement=False),
        sa.Column("place", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("content_type", sa.String(127), nullable=False),
        sa.Column("content_id", sa.String(255)),
        sa.PrimaryKeyConstraint("message_id", "place", name="pk_communication_attachment"),
        _foreign("attachment", "message_id", "communication_mail.message_id", cascade=True),
        _foreign("attachment", "sha256", "communication_file.sha256"),
    )
    op.create_index("ix_communication_attachment_sha256", "communication_attachment", ["sha256"])


def _mailboxes() -> None:
    op.create_table(
        "communication_mailbox",
        sa.Column("config_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("cursor", sa.JSON, nullable=False),
        sa.Column("due_at", Time, nullable=False),
        sa.Column("reading", sa.Boolean, nullable=False),
        sa.Column("synced_at", Time),
        sa.Column("error", sa.String(500)),
        sa.PrimaryKeyConstraint("config_id", name="pk_communication_mailbox"),
        _foreign("mailbox", "config_id", "communication_config.id"),
    )
