"""Alembic's entry: runs revisions on the connection, and in the transaction, that `migrate` hands over."""

from __future__ import annotations

from alembic import context

from planner.archive.migration import VERSION_TABLE
from planner.archive.tables import ArchiveTable

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=ArchiveTable.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
