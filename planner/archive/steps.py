"""Steps: what each step of a study's loop came to, so that the next run goes on where the last one was cut off."""

from __future__ import annotations

from typing import Any

from sqlmodel import select

from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import StepRow


class StepResults:
    """The results of all studies' steps; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def all(self, study_id: str) -> dict[str, Any]:
        """Results by the step's name."""
        with self._sessions.read() as session:
            rows = session.exec(select(StepRow.name, StepRow.result).where(StepRow.study_id == study_id))
            return {name: result["value"] for name, result in rows}

    def record(self, study_id: str, name: str, value: Any) -> None:
        """Store a result; the first of each name wins.

        Raises:
            ArchiveError: no such study, a value that is not JSON, or the database failed.
        """
        row = {"study_id": study_id, "name": name, "result": {"value": value}, "created_at": utc_now()}
        with self._sessions.write() as session:
            insert_missing(session.connection(), StepRow, [row])
