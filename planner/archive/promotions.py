"""Promotions: names that stand for plans, and what they stood for before."""

from __future__ import annotations

from typing import cast

from sqlmodel import col, func, select

from planner.archive.errors import NotFound
from planner.archive.records import PlanKind, PromotionRecord
from planner.archive.sessions import Sessions, serialise, utc_now
from planner.archive.tables import PlanRow, PromotionRow


class Promotions:
    """The names of an archive's plans; safe to share between threads. History is only ever added to."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def promote(self, name: str, study_id: str, kind: PlanKind = "chosen", by: str = "") -> PromotionRecord:
        """Let a name stand for a plan from now on; giving it the plan it stands for already changes nothing.

        Args:
            name: what clients will ask for.
            study_id: whose plan.
            kind: which of its plans.
            by: who does it.

        Raises:
            NotFound: the study has no such plan.
        """
        with self._sessions.write() as session:
            serialise(session, "promotions", name)
            if session.get(PlanRow, (study_id, kind)) is None:
                raise NotFound(f"study {study_id!r} has no {kind} plan; it has one when it is done")
            newest = select(PromotionRow).where(PromotionRow.name == name).order_by(col(PromotionRow.id).desc())
            held = session.exec(newest.limit(1)).first()
            if held is not None and (held.study_id, held.kind) == (study_id, kind):
                return _record(held)
            row = PromotionRow(name=name, study_id=study_id, kind=kind, promoted_at=utc_now(), promoted_by=by)
            session.add(row)
            session.flush()
            return _record(row)

    def get(self, name: str) -> PromotionRecord:
        """What a name stands for.

        Raises:
            NotFound: nothing was ever given this name.
        """
        held = self.history(name, 1)
        if not held:
            raise NotFound(f"no plan was promoted as {name!r}; list the plans to see what there is")
        return held[0]

    def history(self, name: str, limit: int = 100) -> list[PromotionRecord]:
        """What a name stood for, newest first."""
        query = select(PromotionRow).where(PromotionRow.name == name).order_by(col(PromotionRow.id).desc())
        with self._sessions.read() as session:
            return [_record(row) for row in session.exec(query.limit(limit))]

    def current(self) -> list[PromotionRecord]:
        """Every name with what it stands for, by name."""
        newest = select(func.max(PromotionRow.id)).group_by(col(PromotionRow.name))
        query = select(PromotionRow).where(col(PromotionRow.id).in_(newest)).order_by(col(PromotionRow.name))
        with self._sessions.read() as session:
            return [_record(row) for row in session.exec(query)]


def _record(row: PromotionRow) -> PromotionRecord:
    return PromotionRecord(row.name, row.study_id, cast(PlanKind, row.kind), row.promoted_at, row.promoted_by)
