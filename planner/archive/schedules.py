"""Schedules: studies that are run again and again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, delete, select

from planner.archive.errors import NotFound
from planner.archive.records import ScheduleRecord
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import ScheduleRow


class Schedules:
    """The schedules of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def put(self, name: str, spec_json: Mapping[str, Any], cron: str, timezone: str) -> ScheduleRecord:
        """Enter a schedule or change the one of this name, whose pause, creation and last firing stay.

        Raises:
            ArchiveError: the specification is not JSON, or the database failed.
        """
        row = ScheduleRow(
            name=name, spec=dict(spec_json), cron=cron, timezone=timezone, created_at=utc_now(), paused=False
        )
        with self._sessions.write() as session:
            insert_missing(session.connection(), ScheduleRow, [row.model_dump()])
            held = _required(session, name, lock=True)
            held.spec, held.cron, held.timezone = dict(spec_json), cron, timezone
            session.add(held)
            session.flush()
            return _record(held)

    def get(self, name: str) -> ScheduleRecord:
        """The schedule of this name.

        Raises:
            NotFound: there is none.
        """
        with self._sessions.read() as session:
            return _record(_required(session, name))

    def list(self) -> list[ScheduleRecord]:
        """All schedules by name."""
        with self._sessions.read() as session:
            return [_record(row) for row in session.exec(select(ScheduleRow).order_by(col(ScheduleRow.name)))]

    def delete(self, name: str) -> bool:
        """Remove a schedule; False where there was none. The studies it started stay."""
        with self._sessions.write() as session:
            statement = delete(ScheduleRow).where(col(ScheduleRow.name) == name)
            return session.connection().execute(statement).rowcount > 0

    def set_paused(self, name: str, paused: bool) -> ScheduleRecord:
        """Pause a schedule or let it go on.

        Raises:
            NotFound: there is none of this name.
        """
        with self._sessions.write() as session:
            row = _required(session, name, lock=True)
            row.paused = paused
            session.add(row)
            session.flush()
            return _record(row)

    def mark_fired(self, name: str, at: datetime) -> ScheduleRecord:
        """Store when a schedule last fired; an earlier moment than the stored one changes nothing.

        Raises:
            NotFound: there is none of this name.
        """
        with self._sessions.write() as session:
            row = _required(session, name, lock=True)
            if row.last_fired_at is None or row.last_fired_at < at:
                row.last_fired_at = at
                session.add(row)
                session.flush()
            return _record(row)


def _required(session: Session, name: str, lock: bool = False) -> ScheduleRow:
    row = session.get(ScheduleRow, name, with_for_update=lock or None)
    if row is None:
        raise NotFound(f"the archive has no schedule {name!r}; list the schedules to see what there is")
    return row


def _record(row: ScheduleRow) -> ScheduleRecord:
    return ScheduleRecord(**row.model_dump())
