from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.allocation import Allocation, StageSetting
from planner.proposers import Proposal
from planner.proposers.initial import initial_trials
from planner.review import review
from planner.space import SearchSpace
from tests.simulated import simulated_spec

SPACE = SearchSpace(simulated_spec())


def allocation(**changes: StageSetting) -> Allocation:
    base = {s: StageSetting("small", "vote", 1) for s in ("find", "read", "solve")}
    return Allocation.of({**base, **changes})


def test_the_space_lists_exactly_the_allocations_within_budget() -> None:
    listed = list(SPACE.allocations())
    assert len(listed) == len(set(listed))
    assert all(not SPACE.faults(a) for a in listed)
    every = 0
    for find in SPACE._all["find"]:
        for read in SPACE._all["read"]:
            for solve in SPACE._all["solve"]:
                a = Allocation.of({"find": find, "read": read, "solve": solve})
                every += SPACE.total(a) <= SPACE.limit
    assert len(listed) == every


@given(st.integers(0, 10_000), st.integers(1, 30))
@settings(deadline=None, max_examples=30)
def test_sampled_allocations_are_distinct_feasible_and_seeded(seed: int, count: int) -> None:
    sampled = SPACE.sample(random.Random(seed), count)
    assert len(set(sampled)) == len(sampled) <= count
    assert all(not SPACE.faults(a) for a in sampled)
    assert sampled == SPACE.sample(random.Random(seed), count)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (allocation(find=StageSetting("huge", "vote", 1)), "no model 'huge'"),
        (allocation(find=StageSetting("small", "beam", 1)), "no strategy 'beam'"),
        (allocation(find=StageSetting("small", "vote", 3)), "samples 3 not in 1, 2, 4, 8, 16"),
        (Allocation.of({"find": StageSetting("small", "vote", 1)}), "stages must be exactly"),
        (allocation(**{s: StageSetting("large", "vote", 16) for s in ("find", "read", "solve")}), "over budget"),
    ],
)
def test_review_refuses_with_the_reason(bad: Allocation, words: str) -> None:
    verdict = review([Proposal(bad, "agent")], SPACE, set(), 5)[0]
    assert not verdict.accepted
    assert words in verdict.reason


def test_review_refuses_duplicates_of_trials_and_of_the_batch_itself() -> None:
    one = allocation()
    verdicts = review([Proposal(one, "agent"), Proposal(one, "agent")], SPACE, set(), 5)
    assert [v.accepted for v in verdicts] == [True, False]
    assert "duplicate" in review([Proposal(one, "agent")], SPACE, {one}, 5)[0].reason


def test_strategies_that_coincide_at_one_sample_are_one_allocation() -> None:
    same = allocation(solve=StageSetting("small", "best_of_n", 1))
    assert review([Proposal(same, "agent")], SPACE, {allocation()}, 5)[0].accepted is False


def test_stages_in_another_order_are_the_same_allocation() -> None:
    shuffled = Allocation.of({s: StageSetting("small", "vote", 1) for s in ("solve", "find", "read")})
    verdict = review([Proposal(shuffled, "agent")], SPACE, set(), 5)[0]
    assert verdict.allocation == allocation()


def test_review_takes_no_more_than_asked_for() -> None:
    proposals = [Proposal(allocation(find=StageSetting("small", "vote", k)), "agent") for k in (1, 2, 4)]
    assert [v.accepted for v in review(proposals, SPACE, set(), 2)] == [True, True, False]


def test_unreadable_proposals_are_refused_with_their_problem() -> None:
    verdict = review([Proposal(None, "agent", raw="?!", problem="not JSON")], SPACE, set(), 2)[0]
    assert verdict.reason == "not JSON"


def test_initial_trials_look_at_every_model_of_every_stage_within_budget() -> None:
    proposals = initial_trials(SPACE)
    seen = {(s, a[s].model) for p in proposals if (a := p.allocation) for s in a.stages}
    assert seen == {(s, m) for s in ("find", "read", "solve") for m in ("small", "large")}
    assert all(p.allocation is not None and not SPACE.faults(p.allocation) for p in proposals)
    # One sample of `large` costs 2*8e9*30 = 4.8e11, which buys floor((240 - 20) / 10) = 22, so 16, of `small`.
    found = {p.allocation["find"] for p in proposals if p.allocation is not None}
    assert StageSetting("small", "vote", 16) in found
