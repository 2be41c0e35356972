"""Removes what an archive need not keep: ended studies and events older than its operator wants them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, exists, func, select

from planner.archive.archive import Archive
from planner.archive.errors import NotFound, StatusConflict
from planner.archive.sessions import Sessions, serialise, utc_now
from planner.archive.statuses import TERMINAL
from planner.archive.tables import EventRow, PromotionRow, ScheduleRow, ScheduleRunRow, SettingRow, StudyRow, table_of

_LAST = "retained_at"
_EVENTS_A_STEP = 5000
REPEATING = ("guideline", "phase", "progress", "proposal", "trial")
"""Kinds of events that only say again what other tables hold; the others tell why a search ended as it did."""


@dataclass(frozen=True)
class Retention:
    """How long things are kept, in days; None for ever."""

    studies_days: float | None = None
    """Ended studies with all that belongs to them, from their end."""

    events_days: float | None = None
    """Events of ended studies that only repeat what other tables hold, from when they happened."""


@dataclass(frozen=True)
class Removed:
    """What went, or would go."""

    studies: tuple[str, ...] = ()
    events: int = 0
    protected: int = 0
    """Studies that are old enough and stay: a name, a schedule or a schedule's history stands on their plans."""


class RetentionRuns:
    """Applies a retention to one archive."""

    def __init__(self, archive: Archive) -> None:
        """Bind to an open archive."""
        self._archive = archive
        self._sessions = Sessions(archive.engine)

    def apply(self, retention: Retention, dry_run: bool = False, now: datetime | None = None) -> Removed:
        """Remove what is older than a retention allows; draws stay in the bank, which has a pruning of its own.

        Cut off in between, it has removed a part, and goes on when it is applied again.

        Args:
            retention: what to keep.
            dry_run: only say what would go.
            now: the moment to count from.

        Raises:
            ArchiveError: the database failed.
        """
        moment = now or utc_now()
        studies: tuple[str, ...] = ()
        protected = events = 0
        if retention.studies_days is not None:
            studies, protected = self._overdue(moment - timedelta(days=retention.studies_days))
            for study_id in () if dry_run else studies:
                try:
                    self._archive.studies.delete(study_id)
                except (NotFound, StatusConflict):
                    continue  # somebody else deleted it, or started it anew
        if retention.events_days is not None:
            events = self._events(moment - timedelta(days=retention.events_days), dry_run)
        return Removed(studies, events, protected)

    def due(self, every: timedelta, now: datetime | None = None) -> bool:
        """Whether nobody applied a retention lately; the one process that is told so has the turn.

        Raises:
            ArchiveError: the database failed.
        """
        moment = now or utc_now()
        with self._sessions.write() as session:
            serialise(session, "retention")
            row = session.get(SettingRow, _LAST)
            if row is not None and moment - datetime.fromisoformat(row.value) < every:
                return False
            session.merge(SettingRow(name=_LAST, value=moment.isoformat()))
            return True

    def _overdue(self, before: datetime) -> tuple[tuple[str, ...], int]:
        studies, promotions = table_of(StudyRow).c, table_of(PromotionRow).c
        schedules, runs = table_of(ScheduleRow).c, table_of(ScheduleRunRow).c
        old = studies.status.in_(sorted(TERMINAL)) & (studies.finished_at < before)
        needed = (
            exists(select(1).where(promotions.study_id == studies.id))
            | exists(select(1).where(schedules.incumbent_study == studies.id))
            | exists(select(1).where(runs.incumbent_study == studies.id))
        )
        with self._sessions.read() as session:
            connection = session.connection()
            going = connection.execute(select(studies.id).where(old & ~needed).order_by(studies.id)).scalars().all()
            kept = connection.execute(select(func.count()).select_from(table_of(StudyRow)).where(old & needed))
            return tuple(going), int(kept.scalar_one())

    def _events(self, before: datetime, dry_run: bool) -> int:
        events, studies = table_of(EventRow), table_of(StudyRow).c
        ended = exists(select(1).where(studies.id == events.c.study_id, studies.status.in_(sorted(TERMINAL))))
        old = (events.c.created_at < before) & ended & events.c.kind.in_(REPEATING)
        if dry_run:
            with self._sessions.read() as session:
                return int(session.connection().execute(select(func.count()).where(old)).scalar_one())
        return sum(self._events_in_steps(old))

    def _events_in_steps(self, old: ColumnElement[bool]) -> Iterator[int]:
        """Some at a time, so that no writer waits long."""
        events = table_of(EventRow)
        part = select(events.c.id).where(old).limit(_EVENTS_A_STEP).scalar_subquery()
        while True:
            with self._sessions.write() as session:
                gone = session.connection().execute(delete(events).where(events.c.id.in_(part))).rowcount
            yield gone
            if gone < _EVENTS_A_STEP:
                return
