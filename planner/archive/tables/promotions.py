"""Table of those who serve plans: which plan a name stands for, and stood for."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field

from planner.archive.columns import AnyText, RowNumber, UtcDateTime
from planner.archive.tables.base import ArchiveTable


class PromotionRow(ArchiveTable, table=True):
    """One moment at which a name was given to a plan; the newest of a name counts.

    Not tied to the study by a foreign key: were its rows to go with the study, a name that answers clients would fall
    back to an older plan without anybody's word.
    """

    __tablename__ = "promotions"
    __table_args__ = (Index(None, "name", "id"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    name: str
    study_id: str
    kind: str
    promoted_at: datetime = Field(sa_type=UtcDateTime)
    promoted_by: str = Field(sa_type=AnyText)
