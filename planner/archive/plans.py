"""Plans: what studies ended with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy.orm import defer
from sqlmodel import and_, col, or_, select, tuple_

from env.allocation import Allocation
from planner.archive.errors import NotFound
from planner.archive.records import PlanKind, PlanRecord
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import PlanRow, StudyRow

_KEYS_A_STATEMENT = 300


class Plans:
    """The plans of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def record(self, study_id: str, kind: PlanKind, allocation: Allocation, document: Mapping[str, Any]) -> PlanRecord:
        """Store a plan; the first of each kind wins. Returns the one the archive holds.

        Raises:
            ArchiveError: no such study, a document that is not JSON, or the database failed.
        """
        row = {
            "study_id": study_id,
            "kind": kind,
            "allocation": allocation.to_json(),
            "document": dict(document),
            "created_at": utc_now(),
        }
        with self._sessions.write() as session:
            insert_missing(session.connection(), PlanRow, [row])
            return _record(session.get_one(PlanRow, (study_id, kind)))

    def get(self, study_id: str, kind: PlanKind = "chosen") -> PlanRecord:
        """A study's plan.

        Raises:
            NotFound: the study has none (yet).
        """
        with self._sessions.read() as session:
            row = session.get(PlanRow, (study_id, kind))
            if row is None:
                raise NotFound(f"study {study_id!r} has no {kind} plan; it has one when it is done")
            return _record(row)

    def some(
        self, wanted: Sequence[tuple[str, PlanKind]], documents: bool = True
    ) -> dict[tuple[str, PlanKind], PlanRecord]:
        """Plans by study and kind; those that there are not are left out.

        Args:
            wanted: which.
            documents: read the plan documents too; see `page`.
        """
        found: dict[tuple[str, PlanKind], PlanRecord] = {}
        with self._sessions.read() as session:
            for start in range(0, len(wanted), _KEYS_A_STATEMENT):
                part = list(wanted[start : start + _KEYS_A_STATEMENT])
                query = select(PlanRow).where(tuple_(PlanRow.study_id, PlanRow.kind).in_(part))
                for row in session.exec(query if documents else query.options(_no_document())):
                    record = _record(row, documents)
                    found[record.study_id, record.kind] = record
        return found

    def page(
        self,
        limit: int = 50,
        after: tuple[datetime, str, str] | None = None,
        kind: PlanKind | None = None,
        name_contains: str = "",
        documents: bool = True,
    ) -> list[tuple[PlanRecord, str]]:
        """Plans with the names of their studies, newest first.

        Args:
            limit: how many at most.
            after: when the last plan of the page before was made, its study and its kind.
            kind: only these.
            name_contains: only plans of studies whose name contains this, whatever the case.
            documents: read the plan documents too; they are most of a plan, and empty in what is answered without them.
        """
        at, of, which = col(PlanRow.created_at), col(PlanRow.study_id), col(PlanRow.kind)
        query = select(PlanRow, StudyRow.name).join(StudyRow, of == col(StudyRow.id))
        query = query.order_by(at.desc(), of.desc(), which.desc()).limit(limit)
        if kind is not None:
            query = query.where(which == kind)
        if name_contains:
            query = query.where(col(StudyRow.name).icontains(name_contains, autoescape=True))
        if after is not None:
            moment, study, last = after
            earlier = or_(of < study, and_(of == study, which < last))
            query = query.where(or_(at < moment, and_(at == moment, earlier)))
        if not documents:
            query = query.options(_no_document())
        with self._sessions.read() as session:
            return [(_record(row, documents), name) for row, name in session.exec(query)]

    def list(self, study_id: str | None = None, limit: int = 100) -> list[PlanRecord]:
        """Plans, newest first; of one study where given."""
        query = select(PlanRow).order_by(col(PlanRow.created_at).desc(), col(PlanRow.kind).desc()).limit(limit)
        if study_id is not None:
            query = query.where(PlanRow.study_id == study_id)
        with self._sessions.read() as session:
            return [_record(row) for row in session.exec(query)]


def _no_document() -> Any:
    return defer(col(PlanRow.document))  # type: ignore[arg-type]


def _record(row: PlanRow, document: bool = True) -> PlanRecord:
    allocation = Allocation.from_json(row.allocation)
    content = row.document if document else {}
    return PlanRecord(row.study_id, cast(PlanKind, row.kind), allocation, content, row.created_at)
