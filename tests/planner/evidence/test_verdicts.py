"""Paired intervals and verdicts, held against independent references."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from planner.evidence import paired_difference, plain_words, tell_apart


def pairs(more: int, less: int, both: int, neither: int) -> tuple[list[float], list[float]]:
    left = [1.0] * more + [0.0] * less + [1.0] * both + [0.0] * neither
    right = [0.0] * more + [1.0] * less + [1.0] * both + [0.0] * neither
    return left, right


def score_statistic(more: int, less: int, n: int, difference: float) -> float:
    """Tango's statistic, its nuisance probability found by maximising the likelihood numerically."""

    def minus_log_likelihood(q: float) -> float:
        p = q + difference  # probabilities of (1, 0) and (0, 1)
        rest = 1 - p - q
        if p <= 0 or q <= 0 or rest <= 0:
            return math.inf
        return -(more * math.log(p) + less * math.log(q) + (n - more - less) * math.log(rest))

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = (2 * q + difference - difference**2) / n
    return ((more - less) / n - difference) / math.sqrt(variance)


@pytest.mark.parametrize(("more", "less", "n"), [(9, 2, 40), (21, 9, 60), (3, 1, 50), (5, 5, 50)])
def test_both_ends_of_the_interval_for_right_and_wrong_are_where_the_score_test_turns(
    more: int, less: int, n: int
) -> None:
    interval = paired_difference(*pairs(more, less, n - more - less, 0))
    z = float(norm.ppf(0.975))
    assert score_statistic(more, less, n, interval.low) == pytest.approx(z, abs=1e-3)
    assert score_statistic(more, less, n, interval.high) == pytest.approx(-z, abs=1e-3)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 30))
@settings(deadline=None, max_examples=60)
def test_the_interval_holds_its_estimate_and_turns_round_with_the_sides(more: int, less: int, rest: int) -> None:
    if more + less + rest == 0:
        return
    left, right = pairs(more, less, rest, 0)
    one, other = paired_difference(left, right), paired_difference(right, left)
    assert -1 <= one.low <= one.estimate + 1e-9
    assert one.estimate - 1e-9 <= one.high <= 1
    assert one.low == pytest.approx(-other.high, abs=1e-6)


def test_no_disagreement_is_no_certainty() -> None:
    interval = paired_difference([0.5] * 40, [0.5] * 40)
    assert interval.low < 0 < interval.high
    assert interval.high == pytest.approx(1.96**2 / (40 + 1.96**2), abs=1e-3)
    assert paired_difference([1.0] * 400, [1.0] * 400).high < interval.high


@given(st.integers(0, 15), st.integers(0, 15))
@settings(deadline=None, max_examples=50)
def test_right_and_wrong_get_mcnemars_exact_p_value(more: int, less: int) -> None:
    told = tell_apart(*pairs(more, less, 5, 5))
    n = more + less
    tail = sum(math.comb(n, i) for i in range(min(more, less) + 1)) / 2**n
    assert told.p_value == pytest.approx(min(1.0, 2 * tail) if more != less else 1.0)
    assert told.differing == n


def test_graded_scores_get_the_share_of_sign_assignments() -> None:
    differences = [0.5, 0.25, 0.125, -0.25, 0.75, 0.375, 0.125, 0.25]
    told = tell_apart([max(0.0, d) for d in differences], [max(0.0, -d) for d in differences])
    total = abs(sum(differences))
    flips = itertools.product((-1, 1), repeat=len(differences))
    exact = np.mean(
        [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= total - 1e-9 for signs in flips]
    )
    assert told.p_value == pytest.approx(exact, abs=0.015)


def test_a_clear_difference_is_told_apart_and_a_small_one_is_not() -> None:
    clear = tell_apart(*pairs(30, 3, 100, 67))
    assert clear.verdict == "better"
    assert tell_apart(*reversed(pairs(30, 3, 100, 67))).verdict == "worse"
    unclear = tell_apart(*pairs(6, 3, 100, 91))
    assert unclear.verdict == "cannot be told apart"
    words = plain_words(unclear, "The plan", "the runner-up")
    assert "cannot be told apart from the runner-up" in words
    assert "9 of 200 examples differ" in words
    assert "better than the runner-up" in plain_words(clear, "The plan", "the runner-up")


def test_allocations_that_are_alike_are_seldom_told_apart() -> None:
    generator = np.random.default_rng(4)
    wrong = 0
    for _ in range(400):
        chance = generator.beta(1, 1, 60)
        left, right = generator.binomial(6, chance) / 6, generator.binomial(6, chance) / 6
        wrong += tell_apart(left, right).verdict != "cannot be told apart"
    # Binomial(400, 0.05) exceeds 37 with probability below 0.001.
    assert wrong <= 37
