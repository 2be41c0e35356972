"""Data sets: which were uploaded, and who reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import col, delete, select

from planner.archive.errors import NotFound, StatusConflict
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.statuses import TERMINAL
from planner.archive.tables import DatasetRow, ScheduleRow, StudyRow


@dataclass(frozen=True)
class DatasetRecord:
    """One uploaded data set."""

    name: str
    digest: str
    """SHA-256 of its file, hexadecimal."""

    path: str
    """Below the data root."""

    rows: int
    bytes: int
    fields: Sequence[str]
    """What prompts may name."""

    uploaded_as: str
    created_at: datetime


class Datasets:
    """The data sets of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def enter(
        self, name: str, digest: str, path: str, rows: int, bytes: int, fields: Sequence[str], uploaded_as: str
    ) -> DatasetRecord:
        """Enter a data set; the same content under the same name is the one that is there.

        Raises:
            StatusConflict: another one has this name.
            ArchiveError: the database failed.
        """
        row = DatasetRow(
            name=name,
            digest=digest,
            path=path,
            rows=rows,
            bytes=bytes,
            fields=list(fields),
            uploaded_as=uploaded_as,
            created_at=utc_now(),
        )
        with self._sessions.write() as session:
            insert_missing(session.connection(), DatasetRow, [row.model_dump()])
            held = session.get_one(DatasetRow, name)
            if held.digest != digest:
                raise StatusConflict(f"there is another data set {name!r}; choose another name or delete it first")
            return _record(held)

    def get(self, name: str) -> DatasetRecord:
        """The data set of this name.

        Raises:
            NotFound: there is none.
        """
        with self._sessions.read() as session:
            row = session.get(DatasetRow, name)
            if row is None:
                raise NotFound(f"there is no data set {name!r}; list the data sets to see what there is")
            return _record(row)

    def page(self, limit: int, after: str | None = None) -> list[DatasetRecord]:
        """Data sets by name, at most `limit`, with names above `after`."""
        query = select(DatasetRow).order_by(col(DatasetRow.name)).limit(limit)
        if after is not None:
            query = query.where(col(DatasetRow.name) > after)
        with self._sessions.read() as session:
            return [_record(row) for row in session.exec(query)]

    def users(self, path: str) -> list[str]:
        """Schedules and unfinished studies whose spec reads the file at a path below the data root."""
        studies = select(StudyRow.id, StudyRow.spec).where(col(StudyRow.status).not_in(sorted(TERMINAL)))
        with self._sessions.read() as session:
            found = [
                f"schedule {name}"
                for name, spec in session.exec(select(ScheduleRow.name, ScheduleRow.spec))
                if _reads(spec, path)
            ]
            return found + [f"study {id}" for id, spec in session.exec(studies) if _reads(spec, path)]

    def delete(self, name: str) -> bool:
        """Remove a data set's row; False where there is none."""
        with self._sessions.write() as session:
            statement = delete(DatasetRow).where(col(DatasetRow.name) == name)
            return session.connection().execute(statement).rowcount > 0


def _reads(spec: Mapping[str, Any], path: str) -> bool:
    data = spec.get("data")
    return isinstance(data, Mapping) and str(data.get("path", "")).removeprefix("./") == path


def _record(row: DatasetRow) -> DatasetRecord:
    return DatasetRecord(**row.model_dump())
