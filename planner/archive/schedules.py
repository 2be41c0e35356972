"""Schedules: plans that are checked again and again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy.orm import defer
from sqlmodel import Session, col, delete, func, select

from planner.archive.errors import NotFound, StatusConflict
from planner.archive.schedule_records import Advance, AlertTarget, RunRecord, SchedulePlan, ScheduleRecord
from planner.archive.schedule_runs import run_record
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import ScheduleRow, ScheduleRunRow

Decide = Callable[[ScheduleRecord, Sequence[RunRecord]], Advance | None]


class Schedules:
    """The schedules of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def create(self, name: str, plan: SchedulePlan) -> ScheduleRecord:
        """Enter a schedule; its first firing is the first one after now.

        Raises:
            StatusConflict: there is one of this name, with another plan. The same plan again changes nothing.
            ArchiveError: the specification is not JSON, or the database failed.
        """
        now = utc_now()
        row = ScheduleRow(
            name=name, version=1, created_at=now, updated_at=now, paused=False, considered_until=now, **_columns(plan)
        )
        with self._sessions.write() as session:
            insert_missing(session.connection(), ScheduleRow, [row.model_dump()])
            held = _required(session, name)
            if not _same(_record(held).plan, plan):
                raise StatusConflict(f"there is another schedule {name!r}; edit it, or choose another name")
            return _record(held)

    def change(self, name: str, plan: SchedulePlan, version: int | None = None) -> ScheduleRecord:
        """Put another plan in a schedule's place; its runs, pause and last firing stay.

        Firings of the new plan count from now on.

        Args:
            name: which.
            plan: the whole new plan.
            version: the one the editor saw; None to change it whichever it is.

        Raises:
            NotFound: there is none of this name.
            StatusConflict: it was changed since.
        """
        with self._sessions.write() as session:
            row = _required(session, name, lock=True)
            if version is not None and row.version != version:
                raise StatusConflict(f"schedule {name!r} was changed since it was read; read it again")
            values = _columns(plan)
            if plan.on_change != tuple(row.on_change or ()) or plan.spec != row.spec:
                row.observed = None
            for column, value in values.items():
                setattr(row, column, value)
            row.version += 1
            row.updated_at = row.considered_until = utc_now()
            return _written(session, row)

    def get(self, name: str) -> ScheduleRecord:
        """The schedule of this name.

        Raises:
            NotFound: there is none.
        """
        with self._sessions.read() as session:
            return _record(_required(session, name))

    def list(self, specs: bool = True) -> list[ScheduleRecord]:
        """All schedules by name; without their specs where these are not asked for, which may hold long tables."""
        query = select(ScheduleRow).order_by(col(ScheduleRow.name))
        if not specs:
            query = query.options(defer(col(ScheduleRow.spec)))  # type: ignore[arg-type]
        with self._sessions.read() as session:
            return [_record(row, specs) for row in session.exec(query)]

    def delete(self, name: str) -> bool:
        """Remove a schedule with its history; False where there was none. The studies it started stay."""
        with self._sessions.write() as session:
            statement = delete(ScheduleRow).where(col(ScheduleRow.name) == name)
            return session.connection().execute(statement).rowcount > 0

    def set_paused(self, name: str, paused: bool) -> ScheduleRecord:
        """Pause a schedule or let it go on; firings while it was paused are not made up for.

        Raises:
            NotFound: there is none of this name.
        """
        with self._sessions.write() as session:
            row = _required(session, name, lock=True)
            if row.paused and not paused:
                row.considered_until = utc_now()
            row.paused = paused
            return _written(session, row)

    def set_incumbent(self, name: str, study_id: str | None, baseline: Mapping[str, Any] | None) -> None:
        """Store whose plan later runs check, and what data and candidates were when it was found; no edit of a person.

        Raises:
            NotFound: there is none of this name.
        """
        with self._sessions.write() as session:
            row = _required(session, name, lock=True)
            row.incumbent_study = study_id
            row.baseline = None if baseline is None else dict(baseline)
            _written(session, row)

    def advance(self, name: str, decide: Decide) -> Sequence[RunRecord]:
        """Enter what has become due; of several processes that look at once, one enters it.

        Args:
            name: which schedule; nothing happens where it is gone.
            decide: says what is due, from the schedule as it stands and its unfinished runs, oldest first. Quick, and
                without a call on the archive: the schedule is locked meanwhile.

        Returns:
            The runs that were entered.
        """
        with self._sessions.write() as session:
            row = session.get(ScheduleRow, name, with_for_update=True)
            if row is None:
                return []
            unfinished = _unfinished(session, name)
            advance = decide(_record(row), [run_record(run) for run in unfinished])
            if advance is None:
                return []
            for run in unfinished:
                if run.id in advance.cancel:
                    run.cancel_requested = True
                    session.add(run)
            newest = select(func.max(ScheduleRunRow.number)).where(ScheduleRunRow.schedule_name == name)
            number = session.exec(newest).one() or 0
            entered = []
            for position, new in enumerate(advance.runs, 1):
                identity = uuid.uuid4().hex[:12]
                now = utc_now()
                entered.append(
                    ScheduleRunRow(
                        id=identity,
                        schedule_name=name,
                        number=number + position,
                        due=new.due,
                        cause=new.cause,
                        status="waiting" if new.outcome is None else "ended",
                        outcome=new.outcome,
                        reason=new.reason,
                        cancel_requested=False,
                        # Draws are kept by their seed: one that was never used makes them fresh.
                        seed=int(identity, 16) % 2**31,
                        created_at=now,
                        ended_at=None if new.outcome is None else now,
                    )
                )
            session.add_all(entered)
            row.considered_until = max(row.considered_until, advance.considered_until)
            if advance.fired_at is not None:
                row.last_fired_at = advance.fired_at
            if advance.observed is not None:
                row.observed = dict(advance.observed)
            session.add(row)
            session.flush()
            return [run_record(run) for run in entered]


def _unfinished(session: Session, name: str) -> Sequence[ScheduleRunRow]:
    query = select(ScheduleRunRow).where(ScheduleRunRow.schedule_name == name, ScheduleRunRow.status != "ended")
    return session.exec(query.order_by(col(ScheduleRunRow.number))).all()


def _required(session: Session, name: str, lock: bool = False) -> ScheduleRow:
    row = session.get(ScheduleRow, name, with_for_update=lock or None)
    if row is None:
        raise NotFound(f"the archive has no schedule {name!r}; list the schedules to see what there is")
    return row


def _written(session: Session, row: ScheduleRow) -> ScheduleRecord:
    session.add(row)
    session.flush()
    return _record(row)


def _same(held: SchedulePlan, wanted: SchedulePlan) -> bool:
    """Whether they ask for the same, whatever runs have found since."""
    return held == replace(wanted, incumbent_study=held.incumbent_study, baseline=held.baseline)


def _columns(plan: SchedulePlan) -> dict[str, Any]:
    return {
        "spec": dict(plan.spec),
        "cron": plan.cron,
        "timezone": plan.timezone,
        "fires_at": plan.at,
        "on_change": list(plan.on_change) or None,
        "overlap": plan.overlap,
        "missed": plan.missed,
        "keep_runs": plan.keep_runs,
        "alert": None if plan.alert is None else asdict(plan.alert),
        "incumbent_study": plan.incumbent_study,
        "baseline": None if plan.baseline is None else dict(plan.baseline),
    }


def _record(row: ScheduleRow, spec: bool = True) -> ScheduleRecord:
    plan = SchedulePlan(
        spec=row.spec if spec else {},
        cron=row.cron,
        timezone=row.timezone,
        at=row.fires_at,
        on_change=tuple(row.on_change or ()),  # type: ignore[arg-type]
        overlap=row.overlap,  # type: ignore[arg-type]
        missed=row.missed,  # type: ignore[arg-type]
        keep_runs=row.keep_runs,
        alert=None if row.alert is None else AlertTarget(**row.alert),
        incumbent_study=row.incumbent_study,
        baseline=row.baseline,
    )
    return ScheduleRecord(
        name=row.name,
        plan=plan,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        paused=row.paused,
        last_fired_at=row.last_fired_at,
        considered_until=row.considered_until,
        observed=row.observed,
    )
