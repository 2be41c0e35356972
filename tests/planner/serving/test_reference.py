"""How a plan and a budget are written, and which point a budget buys."""

from __future__ import annotations

import pytest

from env.errors import ApportionError
from planner.serving import PlanReference
from planner.serving.reference import budget_text


@pytest.mark.parametrize(
    ("text", "plan", "kind", "budget"),
    [
        ("qa", "qa", None, None),
        ("0ceb108bf4dd:best", "0ceb108bf4dd", "best", None),
        ("qa@2.5e8", "qa", None, 2.5e8),
        ("qa:chosen@250M", "qa", "chosen", 2.5e8),
        ("q.a-b_c@0.5", "q.a-b_c", None, 0.5),
    ],
)
def test_a_reference_is_read(text: str, plan: str, kind: str | None, budget: float | None) -> None:
    assert PlanReference.parse(text) == PlanReference(plan, kind, budget)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "a/b", "a:worst", "a@", "a@0", "a@-1", "a@inf", "a@nan", "a@1e999", "a@1@2", "é", "a\n"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ApportionError):
        PlanReference.parse(text)


@pytest.mark.parametrize("cost", [4.26091e6, 354_123_456.0, 0.00312, 7.0, 999.96, 1e15, 12.0004, 3.2e19])
def test_a_written_budget_buys_what_it_is_written_for_and_little_more(cost: float) -> None:
    budget = PlanReference.parse(f"x@{budget_text(cost)}").budget
    assert budget is not None
    assert cost <= budget <= cost * 1.002
