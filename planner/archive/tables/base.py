"""What every table of the archive shares."""

from typing import Any, ClassVar

from sqlalchemy import MetaData, Table
from sqlmodel import Field, SQLModel


class ArchiveTable(SQLModel):
    """Base of the tables: metadata of their own and constraint names that migrations can count on."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def table_of(row: type[ArchiveTable]) -> Table:
    """The Core table behind a row class, for bulk statements."""
    return ArchiveTable.metadata.tables[str(row.__tablename__)]


def study_key() -> Any:
    """Column that ties a row to its study and goes with it."""
    return Field(foreign_key="studies.id", ondelete="CASCADE")
