"""Trials and their evidence, written together or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import insert
from sqlalchemy.orm import defer
from sqlmodel import and_, col, func, select

from env.allocation import Allocation
from env.execution.evidence import ExampleEvidence, Spend, TrialResult
from planner.archive.errors import ArchiveError, NotFound
from planner.archive.evidence import (
    aggregated_curves,
    curves_from_json,
    curves_json,
    evidence_of,
    evidence_values,
    independent_draws,
    standard_error,
)
from planner.archive.records import KPoint, Outcome, Split, TrialRecord, TrialStatus
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import EvidenceRow, TrialRow, table_of

_NUMBERS_A_STATEMENT = 500
_ROWS_A_FETCH = 5000

_SCORED = (EvidenceRow.status == "scored",)
_OUTCOMES: Mapping[Outcome, tuple[Any, ...]] = {
    "right": (*_SCORED, col(EvidenceRow.realised) >= 1),
    "partly right": (*_SCORED, col(EvidenceRow.realised) > 0, col(EvidenceRow.realised) < 1),
    "wrong": (*_SCORED, col(EvidenceRow.realised) <= 0),
    "scored": (*_SCORED, col(EvidenceRow.realised).is_(None)),
    "failed": (EvidenceRow.status == "failed",),
}


class Trials:
    """The trials of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def record(
        self,
        study_id: str,
        trial_no: int,
        split: Split,
        round: int,
        result: TrialResult,
        unit: str,
        cut: bool = False,
    ) -> TrialRecord:
        """Store a trial with all its evidence in one transaction; the first record of a number wins.

        Args:
            study_id: an existing study.
            trial_no: decides, with the study, whether this trial is known already. A step that is run again finds its
                own record and writes nothing.
            split: which examples.
            round: of the search.
            result: what the evaluation left behind.
            unit: of the costs in `result`.
            cut: the search budget ended within its batch, so that it has no evidence.

        Returns:
            The trial as the archive holds it.

        Raises:
            ArchiveError: no such study, two examples with one id, a number that is not finite, or the database failed.
        """
        ids = [example.example_id for example in result.evidence]
        if len(set(ids)) != len(ids):
            raise ArchiveError(f"trial {trial_no} names an example twice; example ids must be unique in a data set")
        values = _trial_values(study_id, trial_no, split, round, result, unit)
        if cut:
            values = {**values, "status": "cut"}
        rows = [evidence_values(study_id, trial_no, place, example) for place, example in enumerate(result.evidence)]
        for row in (values, *rows):
            _refuse_infinite(trial_no, row)
        with self._sessions.write() as session:
            connection = session.connection()
            if insert_missing(connection, TrialRow, [values]) and rows:
                connection.execute(insert(table_of(EvidenceRow)), rows)
            return record_of(session.exec(_one(study_id, trial_no)).one())

    def get(self, study_id: str, trial_no: int) -> TrialRecord:
        """One trial.

        Raises:
            NotFound: there is none with this number.
        """
        with self._sessions.read() as session:
            row = session.exec(_one(study_id, trial_no)).first()
            if row is None:
                raise NotFound(f"study {study_id!r} has no trial {trial_no}")
            return record_of(row)

    def list(
        self, study_id: str, split: Split | None = None, after: int | None = None, curves: bool = True
    ) -> list[TrialRecord]:
        """Trials of a study by number.

        Args:
            study_id: which.
            split: only of this one.
            after: only with numbers above this.
            curves: read the curves too; they are most of a trial, and empty in what is answered without them.
        """
        query = select(TrialRow).where(TrialRow.study_id == study_id).order_by(col(TrialRow.trial_no))
        if split is not None:
            query = query.where(TrialRow.split == split)
        if after is not None:
            query = query.where(TrialRow.trial_no > after)
        if not curves:
            query = query.options(defer(col(TrialRow.curves)))  # type: ignore[arg-type]
        with self._sessions.read() as session:
            return [record_of(row, curves) for row in session.exec(query)]

    def page(
        self,
        study_id: str,
        limit: int,
        after: int | None = None,
        split: Split | None = None,
        statuses: Sequence[TrialStatus] = (),
        curves: bool = True,
    ) -> Sequence[TrialRecord]:
        """Trials of a study by number, at most `limit`.

        Args:
            study_id: which.
            limit: how many at most.
            after: only with numbers above this.
            split: only of this one.
            statuses: only with one of these; any where empty.
            curves: read the curves too; see `list`.
        """
        query = select(TrialRow).where(TrialRow.study_id == study_id).order_by(col(TrialRow.trial_no)).limit(limit)
        if after is not None:
            query = query.where(TrialRow.trial_no > after)
        if split is not None:
            query = query.where(TrialRow.split == split)
        if statuses:
            query = query.where(col(TrialRow.status).in_(list(statuses)))
        if not curves:
            query = query.options(defer(col(TrialRow.curves)))  # type: ignore[arg-type]
        with self._sessions.read() as session:
            return [record_of(row, curves) for row in session.exec(query)]

    def count(self, study_id: str, split: Split | None = None) -> int:
        """How many trials a study has, of one split where given."""
        query = select(func.count()).where(TrialRow.study_id == study_id)
        if split is not None:
            query = query.where(TrialRow.split == split)
        with self._sessions.read() as session:
            return session.exec(query).one()

    def examples(
        self, study_id: str, trial_no: int, limit: int, after: int | None = None, outcome: Outcome | None = None
    ) -> Sequence[tuple[int, ExampleEvidence]]:
        """A trial's evidence in the order it was recorded, with its places, at most `limit` examples.

        Args:
            study_id: which study.
            trial_no: which of its trials; none where there is no such.
            limit: how many at most.
            after: only at places above this.
            outcome: only examples that this became of.
        """
        query = select(EvidenceRow).where(EvidenceRow.study_id == study_id, EvidenceRow.trial_no == trial_no)
        if after is not None:
            query = query.where(EvidenceRow.position > after)
        if outcome is not None:
            query = query.where(*_OUTCOMES[outcome])
        with self._sessions.read() as session:
            rows = session.exec(query.order_by(col(EvidenceRow.position)).limit(limit))
            return [(row.position, evidence_of(row)) for row in rows]

    def example(self, study_id: str, trial_no: int, example_id: str) -> ExampleEvidence:
        """A trial's evidence on one example.

        Raises:
            NotFound: the trial has none of this id, or there is no such trial.
        """
        with self._sessions.read() as session:
            row = session.get(EvidenceRow, (study_id, trial_no, example_id))
            if row is None:
                raise NotFound(f"trial {trial_no} of study {study_id!r} has no evidence on an example {example_id!r}")
            return evidence_of(row)

    def outcomes(self, study_id: str, trial_no: int) -> dict[Outcome, int]:
        """How many of a trial's examples ended how; those that none did are left out."""
        counts = [func.count().filter(*conditions) for conditions in _OUTCOMES.values()]
        query = select(*counts).where(EvidenceRow.study_id == study_id, EvidenceRow.trial_no == trial_no)
        with self._sessions.read() as session:
            found = session.connection().execute(query).one()
        return {outcome: int(count) for outcome, count in zip(_OUTCOMES, found, strict=True) if count}

    def curves(self, study_id: str, numbers: Sequence[int]) -> dict[int, Mapping[str, tuple[KPoint, ...]]]:
        """Curves by trial number, of those of the trials that there are."""
        found: dict[int, Mapping[str, tuple[KPoint, ...]]] = {}
        with self._sessions.read() as session:
            for start in range(0, len(numbers), _NUMBERS_A_STATEMENT):
                part = numbers[start : start + _NUMBERS_A_STATEMENT]
                query = select(TrialRow.trial_no, TrialRow.curves).where(TrialRow.study_id == study_id)
                for number, value in session.exec(query.where(col(TrialRow.trial_no).in_(part))):
                    found[number] = curves_from_json(value)
        return found

    def scores(self, study_id: str, split: Split = "search") -> Iterator[tuple[int, dict[str, float]]]:
        """(trial number, score by example id) of every trial with a score, by number.

        Streams in one statement and reads nothing else of the evidence: a long study has millions of its rows. Use it
        to its end before the next call on the archive.
        """
        query = (
            select(EvidenceRow.trial_no, EvidenceRow.example_id, EvidenceRow.score)
            .join(TrialRow, _same_trial())
            .where(EvidenceRow.study_id == study_id, TrialRow.split == split, col(EvidenceRow.score).is_not(None))
            .order_by(col(EvidenceRow.trial_no))
        )
        with self._sessions.read() as session:
            rows = session.exec(query.execution_options(yield_per=_ROWS_A_FETCH))
            for number, group in groupby(rows, key=itemgetter(0)):
                yield number, {row[1]: cast(float, row[2]) for row in group}

    def evidence(self, study_id: str, trial_no: int) -> tuple[ExampleEvidence, ...]:
        """The evidence of a trial, as and in the order it was recorded; empty where there is no such trial."""
        query = select(EvidenceRow).where(EvidenceRow.study_id == study_id, EvidenceRow.trial_no == trial_no)
        with self._sessions.read() as session:
            return tuple(evidence_of(row) for row in session.exec(query.order_by(col(EvidenceRow.position))))

    def by_allocation(self, study_id: str, split: Split | None = "search") -> dict[Allocation, TrialRecord]:
        """The latest trial of every allocation tried; of any split where `split` is None."""
        return {trial.allocation: trial for trial in self.list(study_id, split)}


def _same_trial() -> Any:
    return and_(col(TrialRow.study_id) == EvidenceRow.study_id, col(TrialRow.trial_no) == EvidenceRow.trial_no)


def _one(study_id: str, trial_no: int) -> Any:
    return select(TrialRow).where(TrialRow.study_id == study_id, TrialRow.trial_no == trial_no)


def _refuse_infinite(trial_no: int, row: Mapping[str, Any]) -> None:
    """SQLite would store a NaN as NULL, which means something else."""
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ArchiveError(f"trial {trial_no}: {name} is {value}; only finite numbers are kept")


def _trial_values(
    study_id: str, trial_no: int, split: Split, round: int, result: TrialResult, unit: str
) -> Mapping[str, Any]:
    scores = [example.score for example in result.evidence if example.score is not None]
    spend = asdict(result.spend)
    return {
        "study_id": study_id,
        "trial_no": trial_no,
        "split": split,
        "round": round,
        "allocation": result.allocation.to_json(),
        "allocation_key": str(result.allocation),
        "status": "done" if scores else "failed",
        "score": result.score,
        "standard_error": standard_error(scores),
        "scored": len(result.evidence) - result.failed,
        "failed": result.failed,
        "predicted_cost": result.predicted_cost,
        "measured_cost": result.measured_cost,
        "unit": unit,
        "spend_cost": spend.pop("cost"),
        **spend,
        "curves": curves_json(aggregated_curves(result.evidence)),
        "draws": independent_draws(result.evidence),
        "stage_scores": result.stage_scores,
        "examples_planned": result.planned if result.planned is not None else len(result.evidence),
        "created_at": utc_now(),
    }


def record_of(row: TrialRow, curves: bool = True) -> TrialRecord:
    """A row as the archive answers it."""
    return TrialRecord(
        study_id=row.study_id,
        trial_no=row.trial_no,
        split=cast(Split, row.split),
        round=row.round,
        allocation=Allocation.from_json(row.allocation),
        status=cast(Any, row.status),
        score=row.score,
        standard_error=row.standard_error,
        scored=row.scored,
        failed=row.failed,
        predicted_cost=row.predicted_cost,
        measured_cost=row.measured_cost,
        unit=row.unit,
        spend=Spend(
            new_draws=row.new_draws,
            reused_draws=row.reused_draws,
            prompt_tokens=row.prompt_tokens,
            output_tokens=row.output_tokens,
            cost=row.spend_cost,
            seconds=row.seconds,
            load_seconds=row.load_seconds,
        ),
        curves=curves_from_json(row.curves) if curves else {},
        created_at=row.created_at,
        draws=row.draws,
        stage_scores=row.stage_scores or {},
        examples_planned=row.examples_planned,
    )
