"""What is known of an LLM call beside its text and tokens: prompt version, request hash, money, tool calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_calls"
down_revision = "0004_load_seconds"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("proposals", sa.Column("call", sa.JSON(), nullable=True))
