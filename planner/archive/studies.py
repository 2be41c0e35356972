"""Studies: creating, finding and moving them from status to status."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy.orm import defer
from sqlmodel import Session, and_, case, col, delete, func, or_, select, update

from planner.archive.errors import Ambiguous, Changed, NotFound, StatusConflict
from planner.archive.filters import StudyFilter
from planner.archive.pipelines import pipeline_digest
from planner.archive.records import QueueCounts, StudyRecord, StudyStatus
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.statuses import TERMINAL, may_follow
from planner.archive.tables import EvidenceRow, LeaseRow, PromotionRow, ProposalRow, StudyRow, TrialRow

_SHOWN_MATCHES = 10
_TRIALS_A_DELETE = 20
"""Trials whose evidence goes in one transaction: SQLite has one writer, and others wait for it."""


_ALL = StudyFilter()

DEFAULT_PRIORITY = 100
HIGHEST_PRIORITY, LOWEST_PRIORITY = 1, 1_000_000
DEFAULT_QUEUE = "studies"


class Studies:
    """The studies of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def create(
        self,
        id: str,
        name: str,
        spec_json: Mapping[str, Any],
        seed: int,
        idempotency_key: str | None = None,
        schedule_name: str | None = None,
        priority: int = DEFAULT_PRIORITY,
        queue: str = DEFAULT_QUEUE,
    ) -> StudyRecord:
        """Queue a study, or return the one that has this idempotency key or this id already.

        Args:
            id: of a new study.
            name: for people.
            spec_json: the specification.
            seed: of the search.
            idempotency_key: whoever sends it again means the same study.
            schedule_name: the schedule that queues it.
            priority: studies with a lower one are started first.
            queue: where it waits for a worker.

        Raises:
            ArchiveError: the database failed, or the specification is not JSON.
        """
        row = StudyRow(
            id=id,
            name=name,
            spec=dict(spec_json),
            status="queued",
            proposer="",
            seed=seed,
            created_at=utc_now(),
            phase="",
            round=0,
            error="",
            cancel_requested=False,
            idempotency_key=idempotency_key,
            schedule_name=schedule_name,
            priority=priority,
            queue=queue,
            pipeline_digest=pipeline_digest(spec_json),
        )
        with self._sessions.write() as session:
            connection = session.connection()
            if insert_missing(connection, StudyRow, [row.model_dump()]):
                insert_missing(connection, LeaseRow, [LeaseRow(study_id=id, epoch=1, owner="").model_dump()])
            if idempotency_key is not None:
                keyed = session.exec(select(StudyRow).where(StudyRow.idempotency_key == idempotency_key)).first()
                if keyed is not None:
                    return _record(keyed)
            return _record(_required(session, id))

    def get(self, study_id: str) -> StudyRecord:
        """The study with exactly this id.

        Raises:
            NotFound: there is none.
        """
        with self._sessions.read() as session:
            return _record(_required(session, study_id))

    def find(self, prefix: str) -> StudyRecord:
        """The study a person means: by id, by exact name (the newest of them), or by the unique start of its id.

        Raises:
            NotFound: nothing matches.
            Ambiguous: several ids start like this; the message lists them.
        """
        with self._sessions.read() as session:
            exact = session.get(StudyRow, prefix)
            if exact is not None:
                return _record(exact)
            newest_first = (col(StudyRow.created_at).desc(), col(StudyRow.id).desc())
            named = session.exec(select(StudyRow).where(StudyRow.name == prefix).order_by(*newest_first)).first()
            if named is not None:
                return _record(named)
            starts = col(StudyRow.id).startswith(prefix, autoescape=True)
            matches = session.exec(select(StudyRow).where(starts).order_by(*newest_first).limit(_SHOWN_MATCHES)).all()
            if not prefix or not matches:
                raise NotFound(f"no study has the id or name {prefix!r}; list the studies to see what there is")
            if len(matches) > 1:
                listed = ", ".join(f"{row.id} ({row.name})" for row in matches)
                raise Ambiguous(f"{prefix!r} fits several studies: {listed}; give more of the id")
            return _record(matches[0])

    def list(
        self,
        limit: int = 50,
        before: str | None = None,
        status: StudyStatus | None = None,
        name_contains: str = "",
        specs: bool = True,
    ) -> list[StudyRecord]:
        """Studies, newest first.

        Args:
            limit: how many at most.
            before: id of the last study of the page before.
            status: only these.
            name_contains: only studies whose name contains this, whatever the case.
            specs: read the specs too; see `page`.

        Raises:
            NotFound: `before` names no study.
        """
        wanted = StudyFilter(statuses=() if status is None else (status,), name=name_contains)
        last = None if before is None else self.get(before)
        return [*self.page(limit, wanted, None if last is None else (last.created_at, last.id), specs)]

    def page(
        self,
        limit: int,
        wanted: StudyFilter = _ALL,
        after: tuple[datetime, str] | None = None,
        specs: bool = True,
    ) -> Sequence[StudyRecord]:
        """Studies, newest first, at most `limit` of those that are wanted.

        Args:
            limit: how many at most.
            wanted: which.
            after: creation and id of the last study of the page before. It may be gone meanwhile, and newer studies
                that came after it was read appear on no later page.
            specs: read the specs too; with a data set inside they are long, and empty in what is answered without them.
        """
        query = select(StudyRow).where(*wanted.conditions())
        if after is not None:
            moment, id = after
            same_moment = and_(col(StudyRow.created_at) == moment, col(StudyRow.id) < id)
            query = query.where(or_(col(StudyRow.created_at) < moment, same_moment))
        query = query.order_by(col(StudyRow.created_at).desc(), col(StudyRow.id).desc()).limit(limit)
        if not specs:
            query = query.options(defer(col(StudyRow.spec)))  # type: ignore[arg-type]
        with self._sessions.read() as session:
            return [_record(row, specs) for row in session.exec(query)]

    def set_status(self, study_id: str, status: StudyStatus, error: str = "") -> StudyRecord:
        """Move a study to another status; setting the one it has changes nothing.

        The first move to ``running`` sets `started_at`, a final one `finished_at`.

        Args:
            study_id: which.
            status: the new one.
            error: why it failed.

        Raises:
            NotFound: no such study.
            StatusConflict: this status cannot follow the one the study has; final ones are final.
        """
        with self._sessions.write() as session:
            row = _required(session, study_id, lock=True)
            before = cast(StudyStatus, row.status)
            if before == status:
                return _record(row)
            if not may_follow(before, status):
                raise StatusConflict(f"study {study_id} is {before} and cannot become {status}")
            row.status = status
            row.error = error
            if status == "running" and row.started_at is None:
                row.started_at = utc_now()
            if status in TERMINAL:
                row.finished_at = utc_now()
            session.add(row)
            session.flush()
            return _record(row)

    def set_proposer(self, study_id: str, proposer: str) -> None:
        """Store which proposer runs, once ``auto`` is resolved.

        Raises:
            NotFound: no such study.
        """
        self._change(study_id, proposer=proposer)

    def set_progress(self, study_id: str, phase: str, round: int) -> None:
        """Store where in the loop a study is.

        Raises:
            NotFound: no such study.
        """
        self._change(study_id, phase=phase, round=round)

    def set_notes(self, study_id: str, notes: str, versions: Collection[str] | None = None) -> StudyRecord:
        """Replace what people wrote about a study.

        Args:
            study_id: which.
            notes: the new text.
            versions: one of them must be the `notes_version` that is held; any will do where None.

        Raises:
            NotFound: no such study.
            Changed: somebody else changed the notes meanwhile.
        """
        with self._sessions.write() as session:
            row = _required(session, study_id, lock=True)
            if versions is not None and _record(row).notes_version not in versions:
                raise Changed(f"the notes of study {study_id} were changed since they were read; read them again")
            row.notes = notes
            session.add(row)
            session.flush()
            return _record(row)

    def delete(self, study_id: str) -> None:
        """Remove a study that has ended with all that belongs to it; its draws stay in the bank, for others to use.

        Evidence goes some trials at a time, so that no writer waits long. Cut off in between, the study stays with a
        part of its evidence; deleting it again removes the rest.

        Raises:
            NotFound: no such study.
            StatusConflict: it has not ended, or a name that clients ask for stands for its plan.
        """
        trials = select(TrialRow.trial_no).where(TrialRow.study_id == study_id).order_by(col(TrialRow.trial_no))
        evidence = delete(EvidenceRow).where(col(EvidenceRow.study_id) == study_id)
        last = -1
        while True:
            with self._sessions.write() as session:
                row = _required(session, study_id, lock=True)
                if row.status not in TERMINAL:
                    raise StatusConflict(f"study {study_id} is {row.status}; cancel it first, or wait for its end")
                if names := session.exec(_served_names(study_id)).all():
                    shown = ", ".join(repr(name) for name in names)
                    raise StatusConflict(f"a plan of study {study_id} is served as {shown}; promote another one first")
                part = session.exec(trials.where(col(TrialRow.trial_no) > last).limit(_TRIALS_A_DELETE)).all()
                if not part:
                    session.delete(row)
                    return
                session.connection().execute(evidence.where(col(EvidenceRow.trial_no).in_(part)))
                last = part[-1]

    def request_cancel(self, study_id: str) -> StudyRecord:
        """Ask a study to stop; one that no worker runs ends at once, one that has ended stays as it is.

        Raises:
            NotFound: no such study.
        """
        with self._sessions.write() as session:
            row = _required(session, study_id, lock=True)
            if row.status not in TERMINAL:
                row.cancel_requested = True
            if row.status in ("queued", "paused"):
                row.status, row.finished_at = "cancelled", utc_now()
            return _stored(session, row)

    def request_pause(self, study_id: str) -> StudyRecord:
        """Ask a study to pause; one that waits does at once, one that runs before its next batch of trials.

        Raises:
            NotFound: no such study.
            StatusConflict: it has ended.
        """
        with self._sessions.write() as session:
            row = _required(session, study_id, lock=True)
            if row.status in TERMINAL:
                raise StatusConflict(f"study {study_id} is {row.status} and cannot pause")
            row.pause_requested = True
            if row.status == "queued":
                row.status = "paused"
            return _stored(session, row)

    def withdraw_pause(self, study_id: str) -> StudyRecord:
        """Undo `request_pause`: a paused study waits for a worker again, one that still runs goes on.

        Raises:
            NotFound: no such study.
        """
        with self._sessions.write() as session:
            row = _required(session, study_id, lock=True)
            row.pause_requested = False
            if row.status == "paused":
                row.status = "queued"
            return _stored(session, row)

    def pause(self, study_id: str) -> bool:
        """Pause a study as it was asked; False where that was taken back meanwhile.

        Raises:
            NotFound: no such study.
        """
        with self._sessions.write() as session:
            row = _required(session, study_id, lock=True)
            if row.pause_requested and row.status in ("queued", "running"):
                row.status = "paused"
                session.add(row)
            return row.status == "paused"

    def pause_requested(self, study_id: str) -> bool:
        """Whether somebody asked the study to pause.

        Raises:
            NotFound: no such study.
        """
        with self._sessions.read() as session:
            found = session.exec(select(StudyRow.pause_requested).where(StudyRow.id == study_id)).first()
        if found is None:
            raise _missing(study_id)
        return found

    def queues(self) -> Sequence[QueueCounts]:
        """How many studies wait and run, by queue; only queues that have any."""
        waiting = func.sum(case((col(StudyRow.status) == "queued", 1), else_=0))
        running = func.sum(case((col(StudyRow.status) == "running", 1), else_=0))
        busy = col(StudyRow.status).in_(("queued", "running"))
        query = select(StudyRow.queue, waiting, running).where(busy).group_by(StudyRow.queue)
        with self._sessions.read() as session:
            return [QueueCounts(name, int(w), int(r)) for name, w, r in session.exec(query.order_by(StudyRow.queue))]

    def unfinished(self, before: datetime) -> Sequence[tuple[str, int]]:
        """(id, number of the run) of the studies that a worker runs or should run, of those created before a moment."""
        query = select(StudyRow.id, LeaseRow.epoch).join(LeaseRow, col(LeaseRow.study_id) == StudyRow.id)
        query = query.where(col(StudyRow.status).in_(("queued", "running")), col(StudyRow.created_at) < before)
        with self._sessions.read() as session:
            return [(id, epoch) for id, epoch in session.exec(query)]

    def cancel_requested(self, study_id: str) -> bool:
        """Whether somebody asked the study to stop.

        Raises:
            NotFound: no such study.
        """
        with self._sessions.read() as session:
            # The column alone: a spec with its rows inside takes long to read, and every chunk of draws asks.
            found = session.exec(select(StudyRow.cancel_requested).where(StudyRow.id == study_id)).first()
        if found is None:
            raise _missing(study_id)
        return found

    def sizes(self, study_id: str) -> tuple[int, int]:
        """(trials, proposals) held of a study. Rows are only ever added, so these tell whether there are new ones."""
        trials = select(func.count()).where(TrialRow.study_id == study_id).scalar_subquery()
        proposals = select(func.count()).where(ProposalRow.study_id == study_id).scalar_subquery()
        with self._sessions.read() as session:
            found = session.connection().execute(select(trials, proposals)).one()
            return int(found[0]), int(found[1])

    def _change(self, study_id: str, **values: Any) -> None:
        with self._sessions.write() as session:
            statement = update(StudyRow).where(col(StudyRow.id) == study_id).values(**values)
            if session.connection().execute(statement).rowcount == 0:
                raise _missing(study_id)


def _stored(session: Session, row: StudyRow) -> StudyRecord:
    session.add(row)
    session.flush()
    return _record(row)


def _served_names(study_id: str) -> Any:
    """Names that stand for a plan of a study now: the newest promotion of a name counts."""
    newest = select(func.max(PromotionRow.id)).group_by(col(PromotionRow.name))
    query = select(PromotionRow.name).where(col(PromotionRow.id).in_(newest), PromotionRow.study_id == study_id)
    return query.order_by(col(PromotionRow.name))


def _required(session: Session, study_id: str, lock: bool = False) -> StudyRow:
    row = session.get(StudyRow, study_id, with_for_update=lock or None)
    if row is None:
        raise _missing(study_id)
    return row


def _missing(study_id: str) -> NotFound:
    return NotFound(f"the archive has no study {study_id!r}; list the studies to see what there is")


def _record(row: StudyRow, spec: bool = True) -> StudyRecord:
    if spec:
        return StudyRecord(**row.model_dump())
    return StudyRecord(spec={}, **row.model_dump(exclude={"spec"}))
