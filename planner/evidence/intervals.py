"""Intervals of means and of paired differences over examples.

Chosen by measurement: `benchmarks.coverage` counts how often each holds the truth, docs/statistics.md shows the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta
from scipy.stats import norm as normal
from scipy.stats import t as student

CONFIDENCE = 0.95

PSEUDO_MEAN = 0.25
"""Pseudo-observations at each end of the scale that the variance of graded scores is estimated with. A sample whose
scores are nearly all 1 has seen too few of the others to know their spread."""

PSEUDO_PAIRS = 0.5
"""Pseudo-pairs on each side that a paired difference is estimated with, as Agresti and Min (2005) add them for 0/1."""

NEAR_ONE = 0.05
"""Distance from 1 up to which a corrected estimate gets Clopper and Pearson's ends too: so few examples are wrong there
that Wilson's interval, moved down to the corrected estimate, ends too soon above it."""

EQUAL = 1e-12
"""Spread below which scores count as equal."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval."""

    estimate: float
    low: float
    high: float
    standard_error: float
    examples: int
    method: str


def mean_interval(
    scores: Sequence[float] | Array, confidence: float = CONFIDENCE, centre: float | None = None
) -> Interval:
    """Interval of a mean score in [0, 1] over examples drawn alike.

    Scores that are all 0 or 1 get Wilson's score interval (1927). Others get Wilson's with the effective number of
    examples ``n m (1 - m) / s^2`` in place of n (Kott and Carr 1997, for design effects) and Student's quantile in
    place of the normal one: a graded score says more than a coin toss of the same mean by just that factor. m and s^2
    are taken with `PSEUDO_MEAN` further observations at 0 and at 1.

    Around a `centre` within `NEAR_ONE` of 1 the interval is also at least Clopper and Pearson's (1934) for as many
    examples: where to move it is an estimate itself, and a few examples decide it.

    Args:
        scores: one per example.
        confidence: for instance 0.95.
        centre: the estimate, where it is not the mean of the scores: one corrected for how the scores were chosen.

    Raises:
        ValueError: there are no scores, or one lies outside [0, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no scores: nothing was evaluated")
    if not np.isfinite(values).all() or values.min() < -1e-9 or values.max() > 1 + 1e-9:
        raise ValueError("scores must lie in [0, 1]")
    n = int(values.size)
    mean = float(np.clip(values.mean() if centre is None else centre, 0.0, 1.0))
    error = standard_error(values)
    coins = bool(np.isin(values, (0.0, 1.0)).all() or np.ptp(values) < EQUAL or n < 2)
    effective = float(n) if coins else effective_examples(values)
    quantile = normal.ppf(0.5 + confidence / 2) if coins else student.ppf(0.5 + confidence / 2, n - 1)
    low, high = _wilson(mean, effective, float(quantile))
    method = "Wilson score" if coins else f"Wilson score, {effective:.0f} effective examples"
    if centre is not None and 1 - mean <= NEAR_ONE:
        least, most = _clopper_pearson(mean, effective, confidence)
        low, high, method = min(low, least), max(high, most), f"{method}, and Clopper-Pearson"
    return Interval(mean, low, high, error, n, method)


def standard_error(values: Array) -> float:
    """Of the mean; NaN below two values."""
    return float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else float("nan")


def effective_examples(values: Array) -> float:
    """How many 0/1 scores would tell as much about the mean as these graded ones do; at least as many as there are."""
    n = values.size
    weight = n + 2 * PSEUDO_MEAN
    mean = (values.sum() + PSEUDO_MEAN) / weight
    variance = ((values**2).sum() + PSEUDO_MEAN) / weight - mean * mean
    return float(max(n, (n - 1) * mean * (1 - mean) / variance))


def paired_difference(
    left: Sequence[float] | Array, right: Sequence[float] | Array, confidence: float = CONFIDENCE
) -> Interval:
    """Interval of mean(left - right) over the same examples.

    Scores that are all 0 or 1 get Tango's score interval (1998). Others get Student's interval with `PSEUDO_PAIRS`
    further pairs on each side of 0, as large as the differences seen are in the root mean square: what Agresti and Min
    (2005) and Bonett and Price (2012) do for 0/1 scores, on the scale of the data. Few examples of which few differ
    make bootstrap intervals too short: the resamples know no difference that the sample did not show.

    Where no example differs, the interval is Tango's for as many examples without a difference: never a single point.

    Raises:
        ValueError: lengths differ or are 0.
    """
    if len(left) != len(right) or not len(left):
        raise ValueError("a paired difference needs the same examples on both sides, at least one")
    one, other = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    values = one - other
    n, mean = int(values.size), float(values.mean())
    error = standard_error(values)
    if np.abs(values).max() < EQUAL or np.isin(np.concatenate([one, other]), (0.0, 1.0)).all():
        low, high = _tango(int((values > 0.5).sum()), int((values < -0.5).sum()), n, confidence)
        return Interval(mean, low, high, error, n, "Tango score")
    differing = values[np.abs(values) >= EQUAL]
    scale = float((differing**2).mean())
    weight = n + 2 * PSEUDO_PAIRS
    centre = float(values.sum()) / weight
    variance = (float((values**2).sum()) + 2 * PSEUDO_PAIRS * scale) / weight - centre * centre
    half = float(student.ppf(0.5 + confidence / 2, max(1, n - 1))) * math.sqrt(variance / weight)
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Interval(mean, min(low, mean), max(high, mean), error, n, "adjusted Student")


def _wilson(mean: float, n: float, z: float) -> tuple[float, float]:
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    # Rounding must not push the estimate out of its own interval where it is 0 or 1.
    return max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))


def _clopper_pearson(mean: float, n: float, confidence: float) -> tuple[float, float]:
    """Ends that a binomial test of either side does not refuse; n need not be whole."""
    right, tail = mean * n, 0.5 - confidence / 2
    low = float(beta.ppf(tail, right, n - right + 1)) if right > 0 else 0.0
    high = float(beta.ppf(1 - tail, right + 1, n - right)) if right < n else 1.0
    return low, high


def _tango(more: int, less: int, n: int, confidence: float) -> tuple[float, float]:
    """The differences that the score test of paired proportions does not refuse.

    Args:
        more: pairs in which only the left side is 1.
        less: pairs in which only the right side is.
        n: pairs.
        confidence: of the interval.
    """
    z = float(normal.ppf(0.5 + confidence / 2))
    estimate = (more - less) / n

    def statistic(difference: float) -> float:
        """Score statistic at a difference; the nuisance probability at its constrained maximum likelihood."""
        b = -more - less + (2 * n - more + less) * difference
        c = -less * difference * (1 - difference)
        nuisance = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * nuisance + difference * (1 - difference))
        excess = more - less - n * difference
        return excess / math.sqrt(variance) if variance > 1e-300 else math.copysign(math.inf, excess or 1.0)

    nearly = 1 - 1e-9
    low, high = -1.0, 1.0
    if estimate > -nearly and statistic(-nearly) > z:
        low = brentq(lambda d: statistic(d) - z, -nearly, min(estimate, nearly) - 1e-12)
    if estimate < nearly and statistic(nearly) < -z:
        high = brentq(lambda d: statistic(d) + z, max(estimate, -nearly) + 1e-12, nearly)
    return float(low), float(high)
