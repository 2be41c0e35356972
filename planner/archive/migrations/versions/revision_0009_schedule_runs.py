"""Schedules fire by cron, once or on a change, and keep their runs and alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009_schedule_runs"
down_revision = "0008_notes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    _extend_schedules()
    _create_runs()
    _create_alerts()


def _extend_schedules() -> None:
    """Schedules of before have skipped what they missed, and every firing searched anew, whatever ran."""
    moment = sa.DateTime(timezone=True)
    with op.batch_alter_table("schedules") as batch:
        batch.alter_column("cron", existing_type=sa.String(), nullable=True)
        batch.add_column(sa.Column("fires_at", moment, nullable=True))
        batch.add_column(sa.Column("on_change", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("overlap", sa.String(), nullable=False, server_default="skip"))
        batch.add_column(sa.Column("missed", sa.String(), nullable=False, server_default="skip"))
        batch.add_column(sa.Column("keep_runs", sa.Integer(), nullable=False, server_default="200"))
        batch.add_column(sa.Column("alert", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("incumbent_study", sa.String(), nullable=True))
        batch.add_column(sa.Column("baseline", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("observed", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("updated_at", moment, nullable=True))
        batch.add_column(sa.Column("considered_until", moment, nullable=True))
    op.execute(
        "UPDATE schedules SET updated_at = created_at, considered_until = coalesce(last_fired_at, created_at), "
        # The plan that its last study ended with is what its next run checks.
        "incumbent_study = (SELECT s.id FROM studies s JOIN plans p ON p.study_id = s.id AND p.kind = 'chosen' "
        "WHERE s.schedule_name = schedules.name AND s.status = 'done' ORDER BY s.created_at DESC, s.id DESC LIMIT 1)"
    )
    with op.batch_alter_table("schedules") as batch:
        for column in ("updated_at", "considered_until"):
            batch.alter_column(column, existing_type=moment, nullable=False)
        for column, kind in (
            ("overlap", sa.String()),
            ("missed", sa.String()),
            ("keep_runs", sa.Integer()),
            ("version", sa.Integer()),
        ):
            batch.alter_column(column, existing_type=kind, existing_nullable=False, server_default=None)


def _create_runs() -> None:
    op.create_table(
        "schedule_runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("schedule_name", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("found", sa.JSON(), nullable=True),
        sa.Column("incumbent_study", sa.String(), nullable=True),
        sa.Column("trial_no", sa.Integer(), nullable=True),
        sa.Column("new_study", sa.String(), nullable=True),
        sa.Column("check", sa.JSON(), nullable=True),
        sa.Column("diff", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["schedule_name"], ["schedules.name"], name="fk_schedule_runs_schedule_name", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_schedule_runs"),
        sa.UniqueConstraint("schedule_name", "number", name="uq_schedule_runs_schedule_name_number"),
    )
    op.create_index("ix_schedule_runs_status", "schedule_runs", ["status"], unique=False)


def _create_alerts() -> None:
    op.create_table(
        "schedule_alerts",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("schedule_name", sa.String(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret_env", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempts", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["schedule_runs.id"], name="fk_schedule_alerts_run_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", name="pk_schedule_alerts"),
    )
    op.create_index("ix_schedule_alerts_schedule_name", "schedule_alerts", ["schedule_name"], unique=False)
