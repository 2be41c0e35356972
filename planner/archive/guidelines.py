"""Guidelines: what each round taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlmodel import col, func, select, tuple_

from planner.archive.records import GuidelineRecord
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import GuidelineRow


class Guidelines:
    """The guidelines of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def record(self, *guidelines: GuidelineRecord) -> int:
        """Store guidelines in one transaction; the first of each (study, round, position) wins.

        Returns:
            How many were new.

        Raises:
            ArchiveError: no such study, or the database failed.
        """
        rows = [asdict(guideline) | {"created_at": utc_now()} for guideline in guidelines]
        with self._sessions.write() as session:
            return insert_missing(session.connection(), GuidelineRow, rows)

    def list(self, study_id: str, round: int | None = None, newest: int | None = None) -> list[GuidelineRecord]:
        """Guidelines of a study in order: of one round, or of the `newest` rounds that have any, where given."""
        query = select(GuidelineRow).where(GuidelineRow.study_id == study_id)
        if round is not None:
            query = query.where(GuidelineRow.round == round)
        if newest is not None:
            # The smallest of the newest rounds; an index look-up each, however many rounds there are.
            mine = select(GuidelineRow.round).where(GuidelineRow.study_id == study_id).distinct()
            rounds = mine.order_by(col(GuidelineRow.round).desc()).limit(newest).subquery()
            query = query.where(col(GuidelineRow.round) >= select(func.min(rounds.c.round)).scalar_subquery())
        with self._sessions.read() as session:
            rows = session.exec(query.order_by(col(GuidelineRow.round), col(GuidelineRow.position)))
            return [GuidelineRecord(**row.model_dump()) for row in rows]

    def page(
        self, study_id: str, limit: int, after: tuple[int, int] | None = None, round: int | None = None
    ) -> Sequence[GuidelineRecord]:
        """Guidelines of a study in order, at most `limit`.

        Args:
            study_id: the study; none where there is no such.
            limit: how many at most.
            after: round and position of the last one of the page before.
            round: only of this one.
        """
        place = (GuidelineRow.round, GuidelineRow.position)
        query = select(GuidelineRow).where(GuidelineRow.study_id == study_id)
        if after is not None:
            query = query.where(tuple_(*place) > after)
        if round is not None:
            query = query.where(GuidelineRow.round == round)
        with self._sessions.read() as session:
            rows = session.exec(query.order_by(*map(col, place)).limit(limit))
            return [GuidelineRecord(**row.model_dump()) for row in rows]
