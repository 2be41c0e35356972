"""Intervals of means and of paired differences over examples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap
from scipy.stats import norm as normal

RESAMPLES = 4000
CONFIDENCE = 0.95
SEED = 20_250_801
"""Bootstrap resamples are seeded: the same evidence always states the same interval."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval."""

    estimate: float
    low: float
    high: float
    standard_error: float
    examples: int
    method: str


def mean_interval(scores: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Interval of a mean score in [0, 1] over examples drawn alike.

    Scores that are all 0 or 1 get Wilson's score interval (1927); others the BCa bootstrap (Efron 1987). A sample
    without spread, where the bootstrap says nothing, gets Wilson's interval too, which never has zero width.

    Args:
        scores: one per example.
        confidence: for instance 0.95.

    Raises:
        ValueError: there are no scores, or one lies outside [0, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no scores: nothing was evaluated")
    if not np.isfinite(values).all() or values.min() < -1e-9 or values.max() > 1 + 1e-9:
        raise ValueError("scores must lie in [0, 1]")
    mean = float(np.clip(values.mean(), 0.0, 1.0))
    error = float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else float("nan")
    if np.isin(values, (0.0, 1.0)).all() or np.ptp(values) < 1e-12:
        low, high = _wilson(mean, values.size, confidence)
        return Interval(mean, low, high, error, int(values.size), "Wilson score")
    low, high = _bca(values, confidence)
    return Interval(
        mean, max(0.0, low), min(1.0, high), error, int(values.size), f"BCa bootstrap, {RESAMPLES} resamples"
    )


def paired_difference(left: Sequence[float], right: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Interval of mean(left - right) over the same examples, by the BCa bootstrap over pairs.

    Where all differences are equal the interval is that value: the samples show no disagreement at all, and the caller
    must say how many examples that rests on.

    Raises:
        ValueError: lengths differ or are 0.
    """
    if len(left) != len(right) or not left:
        raise ValueError("a paired difference needs the same examples on both sides, at least one")
    values = np.asarray(left, dtype=np.float64) - np.asarray(right, dtype=np.float64)
    mean = float(values.mean())
    error = float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else float("nan")
    if np.ptp(values) < 1e-12:
        return Interval(mean, mean, mean, 0.0, int(values.size), "no spread")
    low, high = _bca(values, confidence)
    return Interval(mean, low, high, error, int(values.size), f"paired BCa bootstrap, {RESAMPLES} resamples")


def _wilson(mean: float, n: int, confidence: float) -> tuple[float, float]:
    z = float(normal.ppf(0.5 + confidence / 2))
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _bca(values: np.ndarray, confidence: float) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(
            (values,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(SEED),
            vectorized=True,
            batch=500,
        )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    if math.isnan(low) or math.isnan(high):
        # BCa is undefined where all resamples fall on one side: fall back on the normal interval.
        z = float(normal.ppf(0.5 + confidence / 2))
        half = z * float(values.std(ddof=1)) / math.sqrt(values.size)
        return float(values.mean()) - half, float(values.mean()) + half
    return low, high
