"""Trials keep the seconds that their models' servers took to load apart from the seconds of inference."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_load_seconds"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. NULL says of older trials that their seconds hold the loads."""
    op.add_column("trials", sa.Column("load_seconds", sa.Float(), nullable=True))
