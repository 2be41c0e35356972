from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.costs import CostDataError, calibrate

costs = st.floats(1e-3, 1e9)


@given(st.lists(costs, min_size=1, max_size=20), st.floats(1e-2, 1e2))
def test_a_constant_factor_is_found_exactly(predicted: list[float], factor: float) -> None:
    fit = calibrate(predicted, [factor * p for p in predicted])
    assert fit.factor == pytest.approx(factor)
    assert fit.pairs == len(predicted)
    if len(predicted) > 1:
        assert fit.low == pytest.approx(factor)
        assert fit.high == pytest.approx(factor)
    else:
        assert (fit.low, fit.high) == (None, None)


@given(st.lists(st.tuples(costs, costs), min_size=2, max_size=20))
def test_swapping_the_sides_inverts_the_factor_and_its_interval(pairs: list[tuple[float, float]]) -> None:
    there = calibrate([p for p, _ in pairs], [m for _, m in pairs])
    back = calibrate([m for _, m in pairs], [p for p, _ in pairs])
    assert back.factor == pytest.approx(1 / there.factor)
    assert there.low is not None
    assert there.high is not None
    assert back.low == pytest.approx(1 / there.high)
    assert there.low <= there.factor * (1 + 1e-9)


def test_the_interval_holds_the_true_factor_as_often_as_it_says() -> None:
    generator, held, repeats = random.Random(1), 0, 600
    for _ in range(repeats):
        predicted = [generator.uniform(1, 100) for _ in range(8)]
        fit = calibrate(predicted, [2.5 * p * math.exp(generator.gauss(0, 0.4)) for p in predicted])
        assert fit.low is not None
        assert fit.high is not None
        held += fit.low <= 2.5 <= fit.high
    assert 0.92 <= held / repeats <= 0.98


def test_rank_correlation_tells_whether_the_order_is_right() -> None:
    assert calibrate([1, 2, 3, 4], [5, 50, 500, 5000]).rank_correlation == pytest.approx(1)
    assert calibrate([1, 2, 3, 4], [4, 3, 2, 1]).rank_correlation == pytest.approx(-1)
    assert calibrate([1, 1, 1], [1, 2, 3]).rank_correlation is None
    assert calibrate([1, 2], [1, 2]).rank_correlation is None


@pytest.mark.parametrize(
    ("predicted", "measured"),
    [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0]), ([1.0], [math.inf]), ([math.nan], [1.0])],
)
def test_what_cannot_be_fitted_is_refused(predicted: list[float], measured: list[float]) -> None:
    with pytest.raises(CostDataError, match="calibration needs"):
        calibrate(predicted, measured)
