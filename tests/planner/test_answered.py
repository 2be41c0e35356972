"""Duplicates up to the noise: what a curve answers needs no trial, and nothing that could win is refused."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.allocation import Allocation, StageSetting
from planner.answered import Answered
from planner.evidence.choice import NEGLIGIBLE
from planner.history import CurveEstimate, TrialView
from planner.proposers import Proposal
from planner.review import review
from planner.space import SearchSpace
from tests.simulated import simulated_spec

SPACE = SearchSpace(simulated_spec())
EXAMPLES = 200
CHOICES = (1, 2, 4, 8, 16)


def allocation(find: int = 1, solve: int = 1) -> Allocation:
    return Allocation.of(
        {
            "find": StageSetting("small", "vote", find),
            "read": StageSetting("large", "vote", 1),
            "solve": StageSetting("small", "vote", solve),
        }
    )


@dataclass
class Results:
    """Trials with per-example scores: a mean by k at `find`, and noise that examples share between all of them."""

    means: Mapping[int, float]
    own_noise: float = 0.0
    """Spread of what an allocation does on one example beyond what the example does to all."""

    examples: int = EXAMPLES
    mass: float = 1.0
    reads: list[int] = field(default_factory=list)

    def _example(self, number: int, samples: int) -> float:
        shared = random.Random(f"example {number}").gauss(0, 0.3)
        own = random.Random(f"{number}/{samples}").gauss(0, 1) * self.own_noise
        return self.means[samples] + shared + own

    def scores(self, trial_no: int) -> Mapping[str, float]:
        self.reads.append(trial_no)
        return {str(i): self._example(i, trial_no) for i in range(self.examples)}

    def curve(self, trial_no: int, stage: str, samples: int, least_mass: float) -> Mapping[str, float]:
        assert stage == "find"
        if self.mass < least_mass:
            return {}
        return {str(i): self._example(i, samples) for i in range(self.examples)}

    def trial(self, samples: int) -> TrialView:
        """Numbered by its samples."""
        points = tuple(CurveEstimate(k, self.means[k], self.mass) for k in CHOICES if k <= samples)
        a = allocation(find=samples)
        curves = {"find": points} if len(points) > 1 else {}
        cost = SPACE.total(a)
        return TrialView(samples, 0, a, self.means[samples], 0.03, cost, cost, 1, curves)


FLAT = {1: 0.50, 2: 0.60, 4: 0.70, 8: 0.70, 16: 0.70}


def answered(results: Results, *tried: int) -> Answered:
    return Answered(SPACE, [results.trial(k) for k in tried], results)


def test_a_setting_on_the_plateau_between_two_trials_needs_no_trial() -> None:
    reason = answered(Results(FLAT), 4, 16).reason(allocation(find=8))
    assert "the curve of trial 16 gives 0.7" in reason
    assert "8 samples at find" in reason
    assert "trial 4 scored 0.700 at no more cost" in reason


@pytest.mark.parametrize(
    ("tried", "proposed", "why"),
    [
        ((16,), allocation(find=4), "cheaper than anything that scores as much"),
        ((16,), allocation(find=8), "a saving that no trial has shown"),
        ((4,), allocation(find=8), "more samples than the curve knows"),
        ((4, 16), allocation(find=8, solve=2), "two stages at once"),
        ((4, 16), allocation(find=8).replace("find", StageSetting("large", "vote", 8)), "another model"),
        ((1, 2, 16), allocation(find=4), "better than all that cost less"),
    ],
)
def test_what_could_become_the_plan_is_let_through(tried: tuple[int, ...], proposed: Allocation, why: str) -> None:
    assert answered(Results(FLAT), *tried).reason(proposed) == "", why


def test_a_difference_that_the_examples_leave_open_is_let_through() -> None:
    assert answered(Results(FLAT, own_noise=0.02), 4, 16).reason(allocation(find=8))
    assert not answered(Results(FLAT, own_noise=0.2), 4, 16).reason(allocation(find=8))


def test_few_examples_and_thin_curves_answer_nothing() -> None:
    assert not answered(Results(FLAT, examples=19), 4, 16).reason(allocation(find=8))
    assert not answered(Results(FLAT, mass=0.9), 4, 16).reason(allocation(find=8))


def test_evidence_is_read_only_for_what_lies_on_a_curve() -> None:
    results = Results(FLAT)
    check = answered(results, 4, 16)
    check.reason(allocation(find=8, solve=4))
    assert results.reads == []
    check.reason(allocation(find=8))
    assert set(results.reads) <= {4, 16}


@given(st.lists(st.floats(0.1, 0.9), min_size=5, max_size=5), st.sets(st.sampled_from(CHOICES), min_size=1))
@settings(deadline=None, max_examples=60)
def test_nothing_is_refused_that_beats_every_trial_no_dearer_by_more_than_is_negligible(
    means: list[float], tried: set[int]
) -> None:
    results = Results(dict(zip(CHOICES, means, strict=True)), examples=40)
    check = answered(results, *sorted(tried))
    for k in CHOICES:
        if k in tried or not check.reason(allocation(find=k)):
            continue
        rivals = [results.means[t] for t in tried if t < k]
        assert rivals
        assert results.means[k] <= max(rivals) + NEGLIGIBLE + 1e-9


def test_review_refuses_with_that_reason_whom_the_check_is_for() -> None:
    check = answered(Results(FLAT), 4, 16)
    proposed = [Proposal(allocation(find=8), "agent"), Proposal(allocation(find=8), "insight")]
    verdicts = review(proposed, SPACE, set(), 4, [lambda p, a, _: check.reason(a) if p.origin == "agent" else ""])
    assert [v.accepted for v in verdicts] == [False, True]
    assert "answered already" in verdicts[0].reason


def test_checks_see_what_was_accepted_before_in_the_batch() -> None:
    seen: list[int] = []

    def count(proposal: Proposal, a: Allocation, accepted: object) -> str:
        seen.append(len(accepted))  # type: ignore[arg-type]
        return "no" if len(seen) == 2 else ""

    verdicts = review([Proposal(allocation(find=k), "agent") for k in (1, 2, 4)], SPACE, set(), 4, [count])
    assert [v.accepted for v in verdicts] == [True, False, True]
    assert seen == [0, 1, 1]
