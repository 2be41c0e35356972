"""Priorities, queues, pauses, leases of studies, and the results of their steps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011_jobs"
down_revision = "0010_promotions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("studies", sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("studies", sa.Column("priority", sa.Integer(), nullable=False, server_default="100"))
    op.add_column("studies", sa.Column("queue", sa.String(), nullable=False, server_default="studies"))
    op.create_table(
        "leases",
        sa.Column("study_id", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_leases_study_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", name="pk_leases"),
    )
    op.execute("INSERT INTO leases (study_id, epoch, owner) SELECT id, 1, '' FROM studies")
    op.create_table(
        "steps",
        sa.Column("study_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_steps_study_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "name", name="pk_steps"),
    )
