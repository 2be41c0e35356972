"""Small results to put into an archive."""

from __future__ import annotations

from collections.abc import Sequence

from env.allocation import Allocation, StageSetting
from env.execution.evidence import CurvePoint, ExampleEvidence, Spend, StageOutcome, TrialResult


def an_allocation(samples: int = 4) -> Allocation:
    """Stages out of alphabetical order, as their order has to survive."""
    return Allocation.of(
        {"solve": StageSetting("small", "vote", samples), "check": StageSetting("large", "best-of-n", 1)}
    )


def an_example(number: int, score: float | None = 0.5) -> ExampleEvidence:
    if score is None:
        return ExampleEvidence(f"e{number}", "failed", None, None, reason="the server gave up")
    return ExampleEvidence(
        example_id=f"e{number}",
        status="scored",
        score=score,
        realised=1.0,
        stages=(
            StageOutcome("solve", '"42"', "ab" * 32, 4, 7, 120, 34),
            StageOutcome("check", None, "cd" * 32, 1, 1, 99, 5),
        ),
        curves={
            "solve": (CurvePoint(1, 0.1 + 0.2, 1.0, 8), CurvePoint(4, score, 1.0, 8)),
            "check": (CurvePoint(1, score / 3, 1 / 3, 1),),
        },
        cost=1.5e12,
    )


def a_result(scores: Sequence[float | None] = (0.0, 1.0, None), allocation: Allocation | None = None) -> TrialResult:
    evidence = tuple(an_example(number, score) for number, score in enumerate(scores))
    scored = any(score is not None for score in scores)
    return TrialResult(
        allocation=allocation or an_allocation(),
        evidence=evidence,
        predicted_cost=1.25e12,
        measured_cost=1.5e12 if scored else None,
        spend=Spend(
            new_draws=12,
            reused_draws=3,
            prompt_tokens=2**33,
            output_tokens=456,
            cost=4.5e13,
            seconds=2.25,
            load_seconds=1.5,
        ),
    )
