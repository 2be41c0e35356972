"""Notes of studies, the digest of their pipelines, and uploaded data sets."""

from __future__ import annotations

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0008_notes"
down_revision = "0007_access"
branch_labels = None
depends_on = None

AT_ONCE = 100
STUDIES = sa.table(
    "studies", sa.column("id", sa.String()), sa.column("spec", sa.JSON()), sa.column("pipeline_digest", sa.String())
)


def upgrade() -> None:
    """Apply."""
    op.add_column("studies", sa.Column("notes", sa.Text(), nullable=False, server_default=""))
    op.add_column("studies", sa.Column("pipeline_digest", sa.String(), nullable=False, server_default=""))
    _fill()
    op.create_index("ix_studies_pipeline_digest", "studies", ["pipeline_digest"])
    op.create_table(
        "datasets",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("uploaded_as", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_datasets"),
        sa.UniqueConstraint("path", name="uq_datasets_path"),
    )


def _fill() -> None:
    """Digests of the pipelines of earlier studies, some specs at a time: they may hold thousands of rows of data."""
    connection, last = op.get_bind(), ""
    while True:
        page = sa.select(STUDIES.c.id, STUDIES.c.spec).where(STUDIES.c.id > last).order_by(STUDIES.c.id).limit(AT_ONCE)
        rows = connection.execute(page).all()
        if not rows:
            return
        for id, spec in rows:
            digest = _digest(spec)
            if digest:
                connection.execute(sa.update(STUDIES).where(STUDIES.c.id == id).values(pipeline_digest=digest))
        last = rows[-1].id


def _digest(spec: object) -> str:
    """As `planner.archive.pipelines` had it when this revision was written."""
    pipeline = spec.get("pipeline") if isinstance(spec, dict) else None
    if not isinstance(pipeline, dict):
        return ""
    content = {name: value for name, value in pipeline.items() if name != "name"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
