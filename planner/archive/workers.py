"""Workers: which processes run studies, and which were not heard of for too long."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlmodel import col, delete, select

from planner.archive.records import WorkerRecord
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import WorkerRow


class Workers:
    """The workers of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def beat(self, executor_id: str, host: str, pid: int) -> None:
        """Say that a worker lives; the first beat enters it.

        Raises:
            ArchiveError: the database failed.
        """
        now = utc_now()
        first = WorkerRow(executor_id=executor_id, host=host, pid=pid, started_at=now, last_beat=now)
        with self._sessions.write() as session:
            if insert_missing(session.connection(), WorkerRow, [first.model_dump()]):
                return
            row = session.get_one(WorkerRow, executor_id, with_for_update=True)
            if (row.host, row.pid) != (host, pid):
                row.host, row.pid, row.started_at = host, pid, now
            row.last_beat = now
            session.add(row)

    def dead(self, older_than_s: float, now: datetime | None = None) -> list[WorkerRecord]:
        """Workers whose last beat is more than `older_than_s` seconds before `now`, longest silent first."""
        limit = (now or utc_now()) - timedelta(seconds=older_than_s)
        query = select(WorkerRow).where(col(WorkerRow.last_beat) < limit).order_by(col(WorkerRow.last_beat))
        with self._sessions.read() as session:
            return [WorkerRecord(**row.model_dump()) for row in session.exec(query)]

    def remove(self, executor_id: str) -> bool:
        """Strike a worker off; False where it was not entered. Of several callers one gets True."""
        with self._sessions.write() as session:
            statement = delete(WorkerRow).where(col(WorkerRow.executor_id) == executor_id)
            return session.connection().execute(statement).rowcount > 0

    def list(self) -> list[WorkerRecord]:
        """All workers entered, by id."""
        with self._sessions.read() as session:
            rows = session.exec(select(WorkerRow).order_by(col(WorkerRow.executor_id)))
            return [WorkerRecord(**row.model_dump()) for row in rows]
