"""Uploaded data sets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from api.schemas.base import Public
from planner.archive import DatasetRecord

DatasetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class FileDataPublic(Public):
    """The part `data` of a spec that reads a data set; `search` and `test` may be added."""

    source: Literal["file"] = "file"
    path: str


class DatasetPublic(Public):
    """One uploaded data set, kept as JSON Lines below the data root."""

    name: str
    digest: str = Field(description="SHA-256 of the file, hexadecimal.")
    rows: int
    bytes: int
    fields: list[str] = Field(description="What prompts may name.")
    uploaded_as: Literal["jsonl", "csv", "parquet"]
    created_at: datetime
    data: FileDataPublic = Field(description="Use this as `data` of a spec. The file never changes.")
    links: dict[str, str]

    @classmethod
    def of(cls, record: DatasetRecord) -> DatasetPublic:
        """From the archive's record."""
        base = f"/api/v1/datasets/{record.name}"
        return cls(
            name=record.name,
            digest=record.digest,
            rows=record.rows,
            bytes=record.bytes,
            fields=list(record.fields),
            uploaded_as=record.uploaded_as,
            created_at=record.created_at,
            data=FileDataPublic(path=record.path),
            links={"self": base, "rows": f"{base}/rows"},
        )


class RowPublic(Public):
    """One row of a data set."""

    number: int = Field(description="From 1.")
    row: dict[str, Any]
