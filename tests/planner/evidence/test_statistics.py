from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from env.allocation import Allocation, StageSetting
from planner.evidence import Contender, choose, compare, mean_interval, paired_difference, pareto


def contender(number: int, scores: list[float], cost: float, share: float = 1.0) -> Contender:
    allocation = Allocation.of({"a": StageSetting("m", "vote", number)})
    named = {str(i): s for i, s in enumerate(scores)}
    return Contender(number, allocation, sum(scores) / len(scores), cost, named, share)


@given(st.integers(1, 300), st.data())
@settings(deadline=None, max_examples=50)
def test_binary_scores_get_wilsons_interval(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    interval = mean_interval([1.0] * right + [0.0] * (n - right))
    reference = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert interval.low == pytest.approx(reference.low, abs=1e-9)
    assert interval.high == pytest.approx(reference.high, abs=1e-9)


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        interval = mean_interval(list(generator.beta(2, 1, 80)))
        covered += interval.low <= 2 / 3 <= interval.high
    # Binomial(300, .95) lies in 272..296 with probability above .999.
    assert 272 <= covered <= 297


def test_the_paired_interval_covers_a_true_difference_of_zero() -> None:
    generator = np.random.default_rng(6)
    covered = 0
    for _ in range(300):
        truth = generator.beta(1, 1, 100)
        left, right = generator.binomial(4, truth) / 4, generator.binomial(4, truth) / 4
        interval = paired_difference(list(left), list(right))
        covered += interval.low <= 0 <= interval.high
    assert 270 <= covered <= 297


def test_graded_scores_near_one_get_an_interval_that_holds() -> None:
    """The bootstrap holds the truth in 85 to 91 of 100 such samples: they seldom show the rare low scores."""
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        interval = mean_interval(list(generator.binomial(8, generator.beta(1.9, 0.1, 50)) / 8))
        covered += interval.low <= 0.95 <= interval.high
    # Binomial(400, .95) is below 366 with probability .001.
    assert covered >= 366


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=40))
@settings(deadline=None, max_examples=40)
def test_an_estimate_corrected_downwards_moves_its_interval_down(scores: list[float]) -> None:
    plain = mean_interval(scores)
    moved = mean_interval(scores, centre=max(0.0, plain.estimate - 0.1))
    assert moved.estimate == pytest.approx(max(0.0, plain.estimate - 0.1))
    assert moved.low <= plain.low + 1e-12
    assert moved.high <= plain.high + 1e-12


def test_an_interval_is_the_same_each_time() -> None:
    scores = list(np.random.default_rng(0).random(50))
    assert mean_interval(scores) == mean_interval(scores)


@pytest.mark.parametrize("scores", [[], [1.5], [float("nan")]])
def test_what_is_no_score_is_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="score"):
        mean_interval(scores)


def test_perfect_scores_do_not_claim_certainty() -> None:
    interval = mean_interval([1.0] * 20)
    assert interval.low < 0.9
    assert interval.high == 1.0


def test_the_cheapest_within_one_paired_error_is_chosen() -> None:
    best = contender(1, [1.0] * 500 + [0.0] * 100, cost=10.0)
    close = contender(2, [1.0] * 499 + [0.0] * 101, cost=5.0)  # one example apart: within one error
    far = contender(3, [1.0] * 400 + [0.0] * 200, cost=1.0)
    choice = choose([far, close, best])
    assert choice.best is best
    assert choice.chosen is close
    assert choice.runner_up is far


def test_a_trial_with_many_failures_is_not_chosen() -> None:
    lucky = contender(1, [1.0] * 10, cost=1.0, share=0.2)
    sound = contender(2, [0.8] * 10, cost=1.0)
    assert choose([lucky, sound]).best is sound


def test_without_any_score_there_is_no_plan() -> None:
    with pytest.raises(ValueError, match="no plan"):
        choose([])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=12))
def test_no_point_of_the_front_is_dominated_and_every_other_is(points: list[tuple[float, float]]) -> None:
    contenders = [contender(i, [score], cost) for i, (score, cost) in enumerate(points)]
    front = pareto(contenders)
    for c in contenders:
        dominated = any(
            (o.cost <= c.cost and o.score >= c.score) and (o.cost < c.cost or o.score > c.score) for o in contenders
        )
        if c in front:
            assert not dominated
        else:
            assert dominated or any(f.cost == c.cost and f.score == c.score for f in front)


def test_trials_are_compared_on_the_examples_both_have() -> None:
    left = contender(1, [1.0, 0.0, 1.0], 1.0)
    right = Contender(2, left.allocation, 0.0, 1.0, {"0": 0.0, "9": 1.0}, 1.0)
    compared = compare(left, right)
    assert compared is not None
    assert compared.difference.estimate == 1.0
    assert compared.difference.examples == 1


def test_a_saving_lost_in_the_rounding_and_a_difference_that_is_not_negligible_are_refused() -> None:
    best = contender(1, [1.0] * 50 + [0.0] * 10, cost=10.0)
    hardly_cheaper = contender(2, [1.0] * 50 + [0.0] * 10, cost=9.9)
    assert choose([best, hardly_cheaper]).chosen is hardly_cheaper  # as good, and cheaper: that is the best itself
    nearly = contender(3, [1.0] * 49 + [0.0] * 11, cost=9.9)
    assert choose([best, nearly]).chosen is best
    noisy = contender(4, [1.0, 0.0] * 27 + [0.0] * 4 + [1.0, 1.0], cost=1.0)
    assert choose([best, noisy]).chosen is best


@pytest.mark.parametrize(("n", "centre"), [(50, 0.97), (200, 0.985)])
def test_a_corrected_estimate_near_one_gets_an_interval_that_a_binomial_test_does_not_refuse(
    n: int, centre: float
) -> None:
    from scipy.stats import binom

    scores = [1.0] * (n - 1) + [0.0]
    found = mean_interval(scores, centre=centre)
    right = centre * n
    assert found.low < centre < found.high
    # Wherever the truth lies inside, what was seen is no rarer than one in forty on either side.
    assert binom.sf(np.ceil(right) - 1, n, found.low - 1e-9) <= 0.025 + 1e-9
    assert binom.cdf(np.floor(right), n, found.high + 1e-9) <= 0.025 + 1e-9
    # What was not corrected keeps Wilson's interval.
    assert "Clopper" not in mean_interval(scores).method
