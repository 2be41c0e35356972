"""Tables of those who run studies: the workers."""

from datetime import datetime

from sqlmodel import Field

from planner.archive.columns import UtcDateTime
from planner.archive.tables.base import ArchiveTable


class WorkerRow(ArchiveTable, table=True):
    """One process that runs studies, and when it was last heard of."""

    __tablename__ = "workers"

    executor_id: str = Field(primary_key=True)
    host: str
    pid: int
    started_at: datetime = Field(sa_type=UtcDateTime)
    last_beat: datetime = Field(sa_type=UtcDateTime, index=True)
