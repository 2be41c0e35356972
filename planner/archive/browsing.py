"""Leafs through a study's trials as its pages show them: some numbers of all of them, all numbers of some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from sqlalchemy import func, select
from sqlmodel import col

from planner.archive.records import Split, TrialRecord, TrialStatus
from planner.archive.sessions import Sessions
from planner.archive.tables import EvidenceRow, GuidelineRow, ProposalRow, TrialRow, table_of
from planner.archive.trials import record_of

TrialSort = Literal["no", "score", "cost", "measured", "draws", "failed", "seconds"]
"""What a list of trials can be in the order of."""

SORTS: tuple[TrialSort, ...] = get_args(TrialSort)


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """A trial in a few numbers."""

    trial_no: int
    split: Split
    status: TrialStatus
    score: float | None
    predicted_cost: float
    measured_cost: float | None
    new_draws: int
    seconds: float
    load_seconds: float
    """0 in trials recorded before loads were kept apart."""

    failed: int
    """Examples that could not be evaluated."""


@dataclass(frozen=True, slots=True)
class EvidenceCell:
    """What became of one example, in a few words."""

    example_id: str
    status: str
    score: float | None
    realised: float | None


def in_order(points: Sequence[TrialPoint], sort: TrialSort, descending: bool) -> list[TrialPoint]:
    """Trials in the order of one of their numbers; those without it come last either way, equal ones by number."""

    def key(point: TrialPoint) -> tuple[bool, float, int]:
        value = _NUMBERS[sort](point)
        return value is None, (-value if descending else value) if value is not None else 0.0, point.trial_no

    return sorted(points, key=key)


_NUMBERS: dict[TrialSort, Callable[[TrialPoint], float | None]] = {
    "no": lambda point: point.trial_no,
    "score": lambda point: point.score,
    "cost": lambda point: point.predicted_cost,
    "measured": lambda point: point.measured_cost,
    "draws": lambda point: point.new_draws,
    "failed": lambda point: point.failed,
    "seconds": lambda point: point.seconds,
}


class Browsing:
    """Reads for people who look at a study; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def points(self, study_id: str, after: int = -1) -> list[TrialPoint]:
        """Every trial of a study with a number above `after`, by number: ten thousand take some 50 ms.

        Raises:
            ArchiveError: the database failed.
        """
        t = table_of(TrialRow).c
        names = ("trial_no", "split", "status", "score", "predicted_cost", "measured_cost", "new_draws", "seconds")
        query = select(*(t[name] for name in names), func.coalesce(t.load_seconds, 0.0), t.failed)
        query = query.where(t.study_id == study_id, t.trial_no > after).order_by(t.trial_no)
        with self._sessions.read() as session:
            return [TrialPoint(*tuple[Any, ...](row)) for row in session.connection().execute(query).all()]

    def some(self, study_id: str, numbers: Sequence[int], curves: bool = False) -> list[TrialRecord]:
        """The trials of these numbers, by number; those that there are not are left out."""
        found: list[TrialRecord] = []
        with self._sessions.read() as session:
            for start in range(0, len(numbers), 500):
                part = list(numbers[start : start + 500])
                columns = [c for c in table_of(TrialRow).c if curves or c.name != "curves"]
                t = table_of(TrialRow).c
                query = select(*columns).where(t.study_id == study_id, t.trial_no.in_(part))
                # Rows as they come have a table's names: making objects of the table takes as long as reading them.
                found += [record_of(cast(TrialRow, row), curves) for row in session.connection().execute(query).all()]
        return sorted(found, key=lambda trial: trial.trial_no)

    def cells(self, study_id: str, trial_no: int, limit: int) -> list[EvidenceCell]:
        """A trial's examples in the order they were recorded, at most `limit`, without what the stages did."""
        e = table_of(EvidenceRow).c
        query = select(e.example_id, e.status, e.score, e.realised)
        query = query.where(e.study_id == study_id, e.trial_no == trial_no).order_by(e.position).limit(limit)
        with self._sessions.read() as session:
            return [EvidenceCell(*row) for row in session.connection().execute(query)]

    def number_of(self, study_id: str, allocation_key: str) -> int | None:
        """Number of the latest search trial of an allocation; None where it was not tried."""
        t = table_of(TrialRow).c
        query = select(func.max(t.trial_no)).where(
            t.study_id == study_id, t.split == "search", t.allocation_key == allocation_key
        )
        with self._sessions.read() as session:
            return cast("int | None", session.connection().execute(query).scalar())

    def refused(self, study_id: str) -> int:
        """How many proposals of a study were refused; calls of the agent's LLM are none."""
        query = select(func.count()).where(
            col(ProposalRow.study_id) == study_id,
            col(ProposalRow.verdict) == "refused",
            col(ProposalRow.origin) != "call",
        )
        with self._sessions.read() as session:
            return int(session.connection().execute(query).scalar_one())

    def guideline_rounds(self, study_id: str) -> int:
        """How many rounds of a study left guidelines."""
        query = select(func.count(func.distinct(col(GuidelineRow.round)))).where(col(GuidelineRow.study_id) == study_id)
        with self._sessions.read() as session:
            return int(session.connection().execute(query).scalar_one())
