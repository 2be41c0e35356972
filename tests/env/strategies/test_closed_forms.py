"""The closed forms against brute-force enumeration of every subset, in every order of drawing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations
from math import isclose

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.allocation import StageSetting
from env.spec import StageSpec
from env.strategies import STRATEGIES, Candidate, ParallelStrategy, StagePlan
from env.strategies._sequential import SequentialStrategy
from env.strategies.rebase import shares
from env.strategies.tallies import majority_probability

STAGE = StageSpec.model_validate(
    {
        "name": "any",
        "prompt": [{"role": "user", "template": "x"}],
        "models": ["m"],
        "tokens": {"prompt": 1, "output": 1},
        "verifier": "v",
        "step_end": ";",
    }
)
VOTE, BEST_OF_N = (s for s in (STRATEGIES["vote"], STRATEGIES["best_of_n"]) if isinstance(s, ParallelStrategy))
CLOSED = sorted(
    n
    for n in STRATEGIES
    if STRATEGIES[n].outcomes(StagePlan(STAGE, StageSetting("m", n, 1)), [Candidate("[1]", 0.5, -1.0, 1)], 1)
)
"""Strategies whose answer is a function of a set of draws, or of their order."""


def plan(name: str, samples: int = 1) -> StagePlan:
    return StagePlan(STAGE, StageSetting("m", name, samples))


def choose(strategy: ParallelStrategy, candidates: Sequence[Candidate]) -> str | None:
    return strategy.choose(plan(strategy.name), candidates)


answers = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=6)
scored = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([0.1, 0.5, 0.5, 0.9])), min_size=1, max_size=5
)


def brute_force(strategy: ParallelStrategy, candidates: list[Candidate], samples: int) -> dict[str | None, float]:
    """Choice over all ordered draws of `samples` candidates, each as likely."""
    counts = Counter(choose(strategy, order) for order in permutations(candidates, samples))
    total = sum(counts.values())
    return {answer: n / total for answer, n in counts.items()}


def same(left: object, right: dict[str | None, float]) -> bool:
    assert isinstance(left, dict)
    keys = left.keys() | right.keys()
    return all(isclose(left.get(k, 0.0), right.get(k, 0.0), abs_tol=1e-9) for k in keys)


@given(answers, st.data())
@settings(deadline=None, max_examples=150)
def test_vote_at_k_equals_enumeration_of_all_ordered_subsets(drawn: list[str | None], data: st.DataObject) -> None:
    candidates = [Candidate(a) for a in drawn]
    k = data.draw(st.integers(1, len(candidates)))
    assert same(VOTE.outcomes(plan("vote"), candidates, k), brute_force(VOTE, candidates, k))


@given(scored, st.data())
@settings(deadline=None, max_examples=150)
def test_best_of_k_equals_enumeration_of_all_ordered_subsets(
    drawn: list[tuple[str | None, float]], data: st.DataObject
) -> None:
    candidates = [Candidate(a, s) for a, s in drawn]
    k = data.draw(st.integers(1, len(candidates)))
    assert same(BEST_OF_N.outcomes(plan("best_of_n"), candidates, k), brute_force(BEST_OF_N, candidates, k))


@given(st.lists(st.sets(st.integers(1, 9), max_size=4), min_size=1, max_size=6), st.data())
@settings(deadline=None)
def test_union_at_k_equals_enumeration_where_subsets_are_few(drawn: list[set[int]], data: st.DataObject) -> None:
    candidates = [Candidate(json.dumps(sorted(ids), separators=(",", ":")) if ids else None) for ids in drawn]
    k = data.draw(st.integers(1, len(candidates)))
    union = STRATEGIES["union"]
    assert isinstance(union, ParallelStrategy)
    counts = Counter(choose(union, subset) for subset in combinations(candidates, k))
    total = sum(counts.values())
    assert same(union.outcomes(plan("union"), candidates, k), {a: n / total for a, n in counts.items()})


def test_the_strategies_that_look_at_sets_of_draws_say_what_fewer_would_have_given() -> None:
    assert set(CLOSED) == {
        "vote", "weighted_vote", "best_of_n", "likeliest", "union", "top_ids", "asc", "esc", "trend"
    }  # fmt: skip


@pytest.mark.parametrize("name", CLOSED)
@given(drawn=st.lists(st.sampled_from(["[1]", "[1,2]", "[3]", None]), min_size=1, max_size=20), data=st.data())
@settings(deadline=None, max_examples=60)
def test_outcomes_are_a_distribution_and_one_sample_is_a_single_draw(
    name: str, drawn: list[str | None], data: st.DataObject
) -> None:
    candidates = [Candidate(a, 0.5, -1.0, 3) for a in drawn]
    strategy = STRATEGIES[name]
    k = data.draw(st.integers(1, len(candidates)))
    found = strategy.outcomes(plan(name), candidates, k)
    assert found is not None
    assert isclose(sum(found.values()), 1.0, abs_tol=1e-9)
    single = {a: n / len(drawn) for a, n in Counter(drawn).items()}
    assert same(dict(strategy.outcomes(plan(name), candidates, 1) or {}), single)


@pytest.mark.parametrize("name", CLOSED)
def test_asking_for_more_samples_than_held_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="3 samples cannot be taken from 2 draws"):
        STRATEGIES[name].outcomes(plan(name), [Candidate("[1]", 0.1, -1.0), Candidate("[2]", 0.2, -2.0)], 3)


def test_a_tie_goes_to_the_answer_drawn_first() -> None:
    assert choose(VOTE, [Candidate("b"), Candidate("a"), Candidate("a"), Candidate("b")]) == "b"


def test_unreadable_outputs_do_not_vote() -> None:
    assert choose(VOTE, [Candidate(None), Candidate(None), Candidate("a")]) == "a"
    assert choose(VOTE, [Candidate(None)]) is None


def test_best_of_n_refuses_candidates_without_a_score() -> None:
    with pytest.raises(ValueError, match="verifier score"):
        choose(BEST_OF_N, [Candidate("a"), Candidate("b")])


def test_a_weighted_vote_lets_two_doubtful_answers_lose_to_a_sure_one() -> None:
    weighted = STRATEGIES["weighted_vote"]
    assert isinstance(weighted, ParallelStrategy)
    assert choose(weighted, [Candidate("a", 0.2), Candidate("a", 0.3), Candidate("b", 0.9)]) == "b"


def test_the_likeliest_is_so_for_each_token() -> None:
    likeliest = STRATEGIES["likeliest"]
    assert isinstance(likeliest, ParallelStrategy)
    short, long = Candidate("short", None, -4.0, 2), Candidate("long", None, -5.0, 10)
    assert choose(likeliest, [short, long]) == "long"
    summed = StagePlan(STAGE, StageSetting("m", "likeliest", 2, (("likeliest.per_token", 0),)))
    assert likeliest.choose(summed, [short, long]) == "short"


def test_top_ids_are_as_many_as_a_sample_usually_names_most_voted_first() -> None:
    top = STRATEGIES["top_ids"]
    assert isinstance(top, ParallelStrategy)
    drawn = [Candidate(a) for a in ("[1,2]", "[2,3]", "[2,4]", "[5]", None)]
    assert choose(top, drawn) == "[1,2]"  # two ids are usual; 2 has three votes, of the rest 1 is the lowest


@given(st.integers(0, 20), st.integers(0, 20))
def test_adaptive_consistency_stops_by_the_probability_that_the_leader_leads(first: int, second: int) -> None:
    leader, other = max(first, second), min(first, second)
    waves = [[Candidate("a")] * leader + [Candidate("b")] * other]
    asc = STRATEGIES["asc"]
    assert isinstance(asc, SequentialStrategy)
    chance = float(majority_probability(np.array([float(leader)]), np.array([float(other)]))[0])
    assert asc.settled(plan("asc", 64), waves) is (chance >= 0.95)


def test_early_stopping_wants_a_whole_window_of_one_readable_answer() -> None:
    esc = STRATEGIES["esc"]
    assert isinstance(esc, SequentialStrategy)
    assert esc.settled(plan("esc", 64), [[Candidate("a")] * 4])
    assert not esc.settled(plan("esc", 64), [[Candidate("a")] * 3 + [Candidate("b")]])
    assert not esc.settled(plan("esc", 64), [[Candidate(None)] * 4])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 10), st.integers(0, 64))
def test_reward_balanced_shares_are_whole_add_up_and_follow_the_reward(
    scores: list[float], temperature: float, slots: int
) -> None:
    given_ = shares(scores, temperature, slots)
    assert sum(given_) == slots
    for (a, n), (b, m) in combinations(list(zip(scores, given_, strict=True)), 2):
        assert n >= m - 1 if a >= b else m >= n - 1
