"""Trial records without an archive."""

from __future__ import annotations

from datetime import UTC, datetime

from env.allocation import Allocation, StageSetting
from env.execution.evidence import Spend
from planner.archive.records import KPoint, TrialRecord


def a_trial(number: int, score: float | None, cost: float = 1e6) -> TrialRecord:
    return TrialRecord(
        study_id="s",
        trial_no=number,
        split="search",
        round=0,
        allocation=Allocation.of({"solve": StageSetting("small", "vote", 2)}),
        status="done" if score is not None else "failed",
        score=score,
        standard_error=0.05 if score is not None else None,
        scored=20 if score is not None else 0,
        failed=0 if score is not None else 20,
        predicted_cost=cost,
        measured_cost=1.1 * cost,
        unit="FLOPs",
        spend=Spend(new_draws=10, reused_draws=3, prompt_tokens=100, output_tokens=50, cost=2e7, seconds=1.5),
        curves={"solve": (KPoint(1, 0.4, 1.0), KPoint(2, 0.5, 1.0))},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
