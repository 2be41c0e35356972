"""Scores of single stages, and how many examples a trial was meant to run on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_stage_scores"
down_revision = "0005_calls"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("trials", sa.Column("stage_scores", sa.JSON(), nullable=True))
    op.add_column("trials", sa.Column("examples_planned", sa.Integer(), nullable=True))
