"""What is said of a plan's fresh scores: moved or not, and what it owes to having been chosen."""

from __future__ import annotations

from typing import Any

import pytest

from env.allocation import Allocation, StageSetting
from env.execution.evidence import ExampleEvidence, Spend
from planner.archive import TrialRecord
from planner.plans import PlanDocument
from planner.plans.document import IntervalPublic
from planner.schedules.diff import run_diff
from planner.schedules.revalidation import Held, difference, moved

PLAN = Allocation.of({"read": StageSetting("large", "vote", 2), "solve": StageSetting("small", "vote", 8)})


def held(scores: dict[str, float], split: Any = "search", corrected: float | None = None, **changes: Any) -> Held:
    mean = sum(scores.values()) / len(scores)
    estimate = None
    if corrected is not None:
        estimate = IntervalPublic(
            estimate=corrected, low=0, high=1, standard_error=None, examples=len(scores), method="-"
        )
    document = PlanDocument.model_construct(corrected_estimate=estimate, engines=[])
    trial = TrialRecord(
        "s", 1, split, 0, changes.get("allocation", PLAN), "done", mean, None, len(scores), 0, 1.0, 1.0,
        changes.get("unit", "flops"), Spend(), {}, None,  # type: ignore[arg-type]
    )  # fmt: skip
    cost = changes.get("cost", 2.0)
    evidence = tuple(ExampleEvidence(i, "scored", s, s, cost=cost + n % 2) for n, (i, s) in enumerate(scores.items()))
    return Held("s", document, trial, evidence)


def scores(right: int, of: int = 100) -> dict[str, float]:
    return {f"e{n}": float(n < right) for n in range(of)}


def test_a_small_change_is_within_its_error_and_a_large_one_is_not() -> None:
    stored = held(scores(80))
    assert not moved(difference(stored, held(scores(78), "revalidation")))
    assert moved(difference(stored, held(scores(60), "revalidation")))
    assert moved(difference(stored, held(scores(95), "revalidation")))


def test_what_a_score_owes_to_having_been_chosen_is_no_decline() -> None:
    fresh = held(scores(72), "revalidation")
    assert moved(difference(held(scores(80)), fresh))
    found = difference(held(scores(80), corrected=0.73), fresh)
    assert found is not None
    assert not moved(found)
    assert found.estimate == pytest.approx(-0.01)


def test_fresh_scores_owe_nothing_to_a_choice() -> None:
    fresh = held(scores(80), "revalidation", corrected=0.7)
    assert fresh.optimism == 0
    assert fresh.score is not None
    assert fresh.score.estimate == pytest.approx(0.8)


def test_plans_without_a_common_example_are_not_compared() -> None:
    other = held({f"x{n}": 1.0 for n in range(5)}, "revalidation")
    assert difference(held(scores(80)), other) is None
    assert run_diff(held(scores(80)), other).score.verdict == "not comparable"


def test_a_diff_names_the_stages_that_changed_with_scores_and_costs() -> None:
    new = Allocation.of({"read": StageSetting("large", "vote", 2), "check": StageSetting("small", "vote", 1)})
    diff = run_diff(held(scores(60)), held(scores(90), allocation=new, cost=3.0))
    assert [(c.stage, c.before is None, c.after is None) for c in diff.plan.stages] == [
        ("check", True, False),
        ("solve", False, True),
    ]
    assert diff.score.verdict == "better"
    assert diff.score.difference is not None
    assert diff.score.difference.low > 0
    assert diff.cost.difference is not None
    assert (diff.cost.difference.estimate, diff.cost.difference.low) == (1.0, 1.0)
    assert diff.cost.before is not None
    assert diff.cost.before.low < 2.5 < diff.cost.before.high


def test_costs_in_other_units_are_not_subtracted() -> None:
    cost = run_diff(held(scores(60)), held(scores(60), unit="dollars")).cost
    assert (cost.unit, cost.before, cost.difference) == ("dollars", None, None)


def test_the_first_plan_has_nothing_before_it() -> None:
    diff = run_diff(None, held(scores(60)))
    assert diff.plan.changed
    assert (diff.plan.before, diff.score.before, diff.cost.before) == (None, None, None)
