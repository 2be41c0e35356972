"""Scores of single stages, and how many examples a trial was meant to run on.

Columns are independent of other revisions: `down_revision` may name any revision from 0003 on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("trials", sa.Column("stage_scores", sa.JSON(), nullable=True))
    op.add_column("trials", sa.Column("examples_planned", sa.Integer(), nullable=True))
