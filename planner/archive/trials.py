"""Trials and their evidence, written together or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import insert
from sqlmodel import col, select

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
from planner.archive.records import Split, TrialRecord
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import EvidenceRow, TrialRow, table_of


class Trials:
    """The trials of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def record(
        self, study_id: str, trial_no: int, split: Split, round: int, result: TrialResult, unit: str
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

        Returns:
            The trial as the archive holds it.

        Raises:
            ArchiveError: no such study, two examples with one id, a number that is not finite, or the database failed.
        """
        ids = [example.example_id for example in result.evidence]
        if len(set(ids)) != len(ids):
            raise ArchiveError(f"trial {trial_no} names an example twice; example ids must be unique in a data set")
        values = _trial_values(study_id, trial_no, split, round, result, unit)
        rows = [evidence_values(study_id, trial_no, place, example) for place, example in enumerate(result.evidence)]
        for row in (values, *rows):
            _refuse_infinite(trial_no, row)
        with self._sessions.write() as session:
            connection = session.connection()
            if insert_missing(connection, TrialRow, [values]) and rows:
                connection.execute(insert(table_of(EvidenceRow)), rows)
            return _record(session.exec(_one(study_id, trial_no)).one())

    def get(self, study_id: str, trial_no: int) -> TrialRecord:
        """One trial.

        Raises:
            NotFound: there is none with this number.
        """
        with self._sessions.read() as session:
            row = session.exec(_one(study_id, trial_no)).first()
            if row is None:
                raise NotFound(f"study {study_id!r} has no trial {trial_no}")
            return _record(row)

    def list(self, study_id: str, split: Split | None = None) -> list[TrialRecord]:
        """Trials of a study by number; of one split where given."""
        query = select(TrialRow).where(TrialRow.study_id == study_id).order_by(col(TrialRow.trial_no))
        if split is not None:
            query = query.where(TrialRow.split == split)
        with self._sessions.read() as session:
            return [_record(row) for row in session.exec(query)]

    def evidence(self, study_id: str, trial_no: int) -> tuple[ExampleEvidence, ...]:
        """The evidence of a trial, as and in the order it was recorded; empty where there is no such trial."""
        query = select(EvidenceRow).where(EvidenceRow.study_id == study_id, EvidenceRow.trial_no == trial_no)
        with self._sessions.read() as session:
            return tuple(evidence_of(row) for row in session.exec(query.order_by(col(EvidenceRow.position))))

    def by_allocation(self, study_id: str, split: Split | None = "search") -> dict[Allocation, TrialRecord]:
        """The latest trial of every allocation tried; of any split where `split` is None."""
        return {trial.allocation: trial for trial in self.list(study_id, split)}


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
        "created_at": utc_now(),
    }


def _record(row: TrialRow) -> TrialRecord:
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
        curves=curves_from_json(row.curves),
        created_at=row.created_at,
        draws=row.draws,
    )
