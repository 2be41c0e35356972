"""Runs of schedules: their way from due to ended, and the alerts about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlmodel import Session, and_, col, delete, or_, select

from planner.archive.errors import NotFound
from planner.archive.schedule_records import AlertRecord, AlertStatus, AlertTarget, RunOutcome, RunRecord
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import ScheduleAlertRow, ScheduleRow, ScheduleRunRow


class ScheduleRuns:
    """The runs of all schedules; safe to share between threads. Steps that run again find what they did."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def get(self, run_id: str) -> RunRecord:
        """One run.

        Raises:
            NotFound: there is none, or it went with its schedule.
        """
        with self._sessions.read() as session:
            return run_record(_required(session, run_id))

    def unfinished(self) -> Sequence[RunRecord]:
        """Runs of all schedules that have not ended, by schedule and number."""
        query = select(ScheduleRunRow).where(ScheduleRunRow.status != "ended")
        ordered = query.order_by(col(ScheduleRunRow.schedule_name), col(ScheduleRunRow.number))
        with self._sessions.read() as session:
            return [run_record(row) for row in session.exec(ordered)]

    def list(self, name: str, limit: int = 50, before: int | None = None) -> list[RunRecord]:
        """Runs of a schedule, newest first.

        Args:
            name: of the schedule.
            limit: how many at most.
            before: only those with lower numbers; the number of the last run of the page before.
        """
        query = select(ScheduleRunRow).where(ScheduleRunRow.schedule_name == name)
        if before is not None:
            query = query.where(ScheduleRunRow.number < before)
        with self._sessions.read() as session:
            rows = session.exec(query.order_by(col(ScheduleRunRow.number).desc()).limit(limit))
            return [run_record(row) for row in rows]

    def start(self, run_id: str, found: Mapping[str, Any], incumbent: str | None, trial_no: int | None) -> RunRecord:
        """A run begins; the first start stays.

        Args:
            run_id: which.
            found: data and candidates as they are now.
            incumbent: study of the plan that is checked.
            trial_no: the number its re-validation gets in that study.

        Raises:
            NotFound: there is none.
        """
        with self._sessions.write() as session:
            row = _required(session, run_id, lock=True)
            if row.status == "waiting":
                row.status, row.started_at, row.found = "running", utc_now(), dict(found)
                row.incumbent_study, row.trial_no = incumbent, trial_no
            return _written(session, row)

    def searching(self, run_id: str, new_study: str, reason: str, check: Mapping[str, Any] | None) -> RunRecord:
        """A run waits for the search it asked for; it ends when that study does.

        Raises:
            NotFound: there is none.
        """
        with self._sessions.write() as session:
            row = _required(session, run_id, lock=True)
            if row.status == "running":
                row.status, row.new_study, row.reason = "searching", new_study, reason
                row.check = None if check is None else dict(check)
            return _written(session, row)

    def end(
        self,
        run_id: str,
        outcome: RunOutcome,
        reason: str,
        check: Mapping[str, Any] | None = None,
        diff: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """A run ends, once; the schedule forgets its oldest runs beyond those it keeps.

        Raises:
            NotFound: there is none.
        """
        with self._sessions.write() as session:
            row = _required(session, run_id, lock=True)
            if row.status != "ended":
                row.status, row.outcome, row.reason, row.ended_at = "ended", outcome, reason, utc_now()
                row.check = dict(check) if check is not None else row.check
                row.diff = None if diff is None else dict(diff)
                session.add(row)
                session.flush()
                _forget(session, row.schedule_name)
            return run_record(row)

    def request_cancel(self, run_id: str) -> RunRecord:
        """Ask a run to stop; one that has ended stays as it is.

        Raises:
            NotFound: there is none.
        """
        with self._sessions.write() as session:
            row = _required(session, run_id, lock=True)
            row.cancel_requested = row.cancel_requested or row.status != "ended"
            return _written(session, row)

    def cancel_requested(self, run_id: str) -> bool:
        """Whether somebody asked a run to stop, or its schedule was deleted."""
        with self._sessions.read() as session:
            found = session.exec(select(ScheduleRunRow.cancel_requested).where(ScheduleRunRow.id == run_id)).first()
        return found is None or found


class ScheduleAlerts:
    """What was told of runs, and how that went; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def enter(self, run: RunRecord, target: AlertTarget, body: str) -> AlertRecord:
        """An alert to be delivered; the first one of a run stays.

        Raises:
            ArchiveError: the run is gone.
        """
        values = {
            "run_id": run.id,
            "schedule_name": run.schedule_name,
            "url": target.url,
            "secret_env": target.secret_env,
            "body": body,
            "status": "pending",
            "attempts": [],
            "created_at": utc_now(),
        }
        with self._sessions.write() as session:
            insert_missing(session.connection(), ScheduleAlertRow, [values])
            return _alert(session.get_one(ScheduleAlertRow, run.id))

    def get(self, run_id: str) -> AlertRecord:
        """The alert about a run.

        Raises:
            NotFound: there is none.
        """
        with self._sessions.read() as session:
            return _alert(_required_alert(session, run_id))

    def pending(self) -> Sequence[str]:
        """Runs whose alerts are not delivered yet, nor given up."""
        query = select(ScheduleAlertRow.run_id).where(ScheduleAlertRow.status == "pending")
        with self._sessions.read() as session:
            return session.exec(query.order_by(col(ScheduleAlertRow.created_at))).all()

    def list(self, name: str, limit: int = 50, before: tuple[datetime, str] | None = None) -> list[AlertRecord]:
        """Alerts of a schedule, newest first.

        Args:
            name: of the schedule.
            limit: how many at most.
            before: moment and run of the last alert of the page before.
        """
        query = select(ScheduleAlertRow).where(ScheduleAlertRow.schedule_name == name)
        if before is not None:
            moment, run_id = before
            same = and_(col(ScheduleAlertRow.created_at) == moment, col(ScheduleAlertRow.run_id) < run_id)
            query = query.where(or_(col(ScheduleAlertRow.created_at) < moment, same))
        ordered = query.order_by(col(ScheduleAlertRow.created_at).desc(), col(ScheduleAlertRow.run_id).desc())
        with self._sessions.read() as session:
            return [_alert(row) for row in session.exec(ordered.limit(limit))]

    def attempted(self, run_id: str, attempt: Mapping[str, Any], status: AlertStatus) -> AlertRecord:
        """Keep an attempt, by its number: one that is made again takes the place of the one cut off.

        Raises:
            NotFound: the alert went with its run.
        """
        with self._sessions.write() as session:
            row = _required_alert(session, run_id, lock=True)
            others = [held for held in row.attempts if held["number"] != attempt["number"]]
            row.attempts = sorted([*others, dict(attempt)], key=lambda held: held["number"])
            row.status = status
            row.ended_at = None if status == "pending" else utc_now()
            session.add(row)
            session.flush()
            return _alert(row)


def run_record(row: ScheduleRunRow) -> RunRecord:
    """A run without its tie to the database."""
    return RunRecord(**row.model_dump())


def _forget(session: Session, name: str) -> None:
    """Remove the oldest ended runs beyond those that a schedule keeps."""
    keep = session.exec(select(ScheduleRow.keep_runs).where(ScheduleRow.name == name)).one()
    kept = (
        select(ScheduleRunRow.id)
        .where(ScheduleRunRow.schedule_name == name)
        .order_by(col(ScheduleRunRow.number).desc())
        .limit(keep)
    )
    session.connection().execute(
        delete(ScheduleRunRow).where(
            col(ScheduleRunRow.schedule_name) == name,
            col(ScheduleRunRow.status) == "ended",
            col(ScheduleRunRow.id).not_in(kept),
        )
    )


def _required(session: Session, run_id: str, lock: bool = False) -> ScheduleRunRow:
    row = session.get(ScheduleRunRow, run_id, with_for_update=lock or None)
    if row is None:
        raise NotFound(
            f"the archive has no run {run_id!r} of a schedule; list the schedule's runs to see what there is"
        )
    return row


def _written(session: Session, row: ScheduleRunRow) -> RunRecord:
    session.add(row)
    session.flush()
    return run_record(row)


def _required_alert(session: Session, run_id: str, lock: bool = False) -> ScheduleAlertRow:
    row = session.get(ScheduleAlertRow, run_id, with_for_update=lock or None)
    if row is None:
        raise NotFound(f"the archive has no alert about the run {run_id!r}")
    return row


def _alert(row: ScheduleAlertRow) -> AlertRecord:
    return AlertRecord(**row.model_dump())
