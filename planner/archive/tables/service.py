"""Tables of those who run studies: the workers, and the data sets they are given."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlmodel import Field

from planner.archive.columns import AnyText, Json, UtcDateTime
from planner.archive.tables.base import ArchiveTable


class WorkerRow(ArchiveTable, table=True):
    """One process that runs studies, and when it was last heard of."""

    __tablename__ = "workers"

    executor_id: str = Field(primary_key=True)
    host: str
    pid: int
    started_at: datetime = Field(sa_type=UtcDateTime)
    last_beat: datetime = Field(sa_type=UtcDateTime, index=True)


class DatasetRow(ArchiveTable, table=True):
    """One uploaded data set; its rows are a file below the data root."""

    __tablename__ = "datasets"

    name: str = Field(primary_key=True)
    digest: str
    """SHA-256 of the file's bytes, hexadecimal."""

    path: str = Field(unique=True, sa_type=AnyText)
    """Below the data root."""

    rows: int
    bytes: int = Field(sa_type=BigInteger)
    fields: list[str] = Field(sa_type=Json)
    """Names that prompts may use, in the order they were first met."""

    uploaded_as: str
    created_at: datetime = Field(sa_type=UtcDateTime)
