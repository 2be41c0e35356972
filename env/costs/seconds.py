"""Seconds on your own servers: idealized runtime times a factor fitted from measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from env.costs._base import CostDataError, CostOptions, Lack, ModelProfile, StageTokens
from env.costs.runtime import RuntimeCost

CALIBRATION_LACK = Lack(
    "plan",
    "calibration",
    "seconds cannot be told from tokens alone: state the factor of measured over idealized seconds, which the report "
    "of a study on these servers gives (or take the unit runtime, which needs none)",
)


class SecondsCost:
    """``s = calibration x idealized runtime``."""

    unit = "s"

    def __init__(self, options: CostOptions) -> None:
        self._factor = options.calibration
        self._runtime = RuntimeCost(options)

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """See `CostModel.lacks`."""
        return self._runtime.lacks(model) + ([] if self._factor is not None else [CALIBRATION_LACK])

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`."""
        if self._factor is None:
            raise CostDataError(f"{CALIBRATION_LACK.field}: {CALIBRATION_LACK.message}")
        return self._factor * self._runtime.stage_cost(model, tokens)


@dataclass(frozen=True)
class Calibration:
    """How measured costs follow predicted ones."""

    factor: float
    """Geometric mean of measured over predicted."""

    low: float | None
    high: float | None
    """95% interval of the factor; None with fewer than two pairs."""

    rank_correlation: float | None
    """Spearman's, in [-1, 1]; None with fewer than three pairs or where one side never changes."""

    pairs: int


def calibrate(predicted: Sequence[float], measured: Sequence[float], confidence: float = 0.95) -> Calibration:
    """Fit ``measured = factor x predicted`` on a logarithmic scale.

    The factor is the geometric mean of the ratios: errors of a prediction grow with it, so they are compared as
    ratios, and a factor of 2 and one of 1/2 cancel. The interval is Student's for the mean of the logarithms. The rank
    correlation tells what no factor can: whether the prediction orders the allocations as the measurement does.

    Args:
        predicted: costs, all above 0.
        measured: costs in the same order, all above 0.
        confidence: of the interval.

    Raises:
        CostDataError: no pairs, unequal numbers, or a cost that is not above 0 and finite.
    """
    if len(predicted) != len(measured) or not predicted:
        raise CostDataError(f"calibration needs pairs: {len(predicted)} predicted and {len(measured)} measured costs")
    if not all(math.isfinite(x) and x > 0 for x in (*predicted, *measured)):
        raise CostDataError("calibration needs costs above 0; leave out what was not measured")
    logs = [math.log(m / p) for p, m in zip(predicted, measured, strict=True)]
    mean, n = math.fsum(logs) / len(logs), len(logs)
    low = high = None
    if n > 1:
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (n - 1))
        half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * deviation / math.sqrt(n)
        low, high = math.exp(mean - half), math.exp(mean + half)
    return Calibration(math.exp(mean), low, high, _rank_correlation(predicted, measured), n)


def _rank_correlation(predicted: Sequence[float], measured: Sequence[float]) -> float | None:
    if len(predicted) < 3 or len(set(predicted)) < 2 or len(set(measured)) < 2:
        return None
    return float(stats.spearmanr(predicted, measured).statistic)
