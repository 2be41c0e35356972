"""The closed forms against brute-force enumeration of every subset, in every order of drawing."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations, permutations
from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.strategies import STRATEGIES, BestOfN, Candidate, Strategy, Vote

answers = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=6)
scored = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([0.1, 0.5, 0.5, 0.9])), min_size=1, max_size=5
)


def brute_force(strategy: Strategy, candidates: list[Candidate], samples: int) -> dict[str | None, float]:
    """Choice over all ordered draws of `samples` candidates, each as likely."""
    counts = Counter(strategy.choose(order) for order in permutations(candidates, samples))
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
    assert same(Vote().outcomes(candidates, k), brute_force(Vote(), candidates, k))


@given(scored, st.data())
@settings(deadline=None, max_examples=150)
def test_best_of_k_equals_enumeration_of_all_ordered_subsets(
    drawn: list[tuple[str | None, float]], data: st.DataObject
) -> None:
    candidates = [Candidate(a, s) for a, s in drawn]
    k = data.draw(st.integers(1, len(candidates)))
    assert same(BestOfN().outcomes(candidates, k), brute_force(BestOfN(), candidates, k))


@given(st.lists(st.sets(st.integers(1, 9), max_size=4), min_size=1, max_size=6), st.data())
@settings(deadline=None)
def test_union_at_k_equals_enumeration_where_subsets_are_few(drawn: list[set[int]], data: st.DataObject) -> None:
    candidates = [Candidate(json.dumps(sorted(ids), separators=(",", ":")) if ids else None) for ids in drawn]
    k = data.draw(st.integers(1, len(candidates)))
    union = STRATEGIES["union"]
    counts = Counter(union.choose(subset) for subset in combinations(candidates, k))
    total = sum(counts.values())
    assert same(union.outcomes(candidates, k), {a: n / total for a, n in counts.items()})


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@given(drawn=st.lists(st.sampled_from(["[1]", "[1,2]", "[3]", None]), min_size=1, max_size=20), data=st.data())
@settings(deadline=None, max_examples=60)
def test_outcomes_are_a_distribution_and_one_sample_is_a_single_draw(
    name: str, drawn: list[str | None], data: st.DataObject
) -> None:
    candidates = [Candidate(a, 0.5) for a in drawn]
    strategy = STRATEGIES[name]
    k = data.draw(st.integers(1, len(candidates)))
    assert isclose(sum(strategy.outcomes(candidates, k).values()), 1.0, abs_tol=1e-9)
    single = {a: n / len(drawn) for a, n in Counter(drawn).items()}
    assert same(dict(strategy.outcomes(candidates, 1)), single)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_asking_for_more_samples_than_held_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="3 samples cannot be taken from 2 draws"):
        STRATEGIES[name].outcomes([Candidate("[1]", 0.1), Candidate("[2]", 0.2)], 3)


def test_a_tie_goes_to_the_answer_drawn_first() -> None:
    assert Vote().choose([Candidate("b"), Candidate("a"), Candidate("a"), Candidate("b")]) == "b"


def test_unreadable_outputs_do_not_vote() -> None:
    assert Vote().choose([Candidate(None), Candidate(None), Candidate("a")]) == "a"
    assert Vote().choose([Candidate(None)]) is None


def test_best_of_n_refuses_candidates_without_a_score() -> None:
    with pytest.raises(ValueError, match="verifier score"):
        BestOfN().choose([Candidate("a"), Candidate("b")])
