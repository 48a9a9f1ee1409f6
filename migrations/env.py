"""The environment of Alembic; ``storage.migrations`` gives it a connection and no ini file."""

from alembic import context

from flask_communication.storage.migrations import VERSION_TABLE
from flask_communication.storage.models.indexes import whole_metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=whole_metadata(),
    version_table=VERSION_TABLE,
    # SQLite cannot alter a table; Alembic copies it instead.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
