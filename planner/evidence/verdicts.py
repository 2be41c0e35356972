"""Says whether two allocations can be told apart on the examples both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import binomtest

from planner.evidence.intervals import CONFIDENCE, EQUAL, Array, Interval, paired_difference

VerdictWord = Literal["better", "worse", "cannot be told apart"]

FLIPS = 9_999
SEED = 20_250_801
"""Flips are seeded: the same evidence always gives the same verdict."""


@dataclass(frozen=True)
class Distinction:
    """A paired comparison: how large the difference is, and whether chance alone explains it."""

    verdict: VerdictWord
    """Of the left side; ``better`` and ``worse`` only where test and interval agree that there is a difference."""

    difference: Interval
    """Left minus right."""

    p_value: float
    """Two-sided: how often a difference at least this large would be seen if there were none."""

    test: str
    differing: int
    """Examples on which the two scored differently; only they speak about the difference."""


def tell_apart(left: Sequence[float] | Array, right: Sequence[float] | Array) -> Distinction:
    """Hold two allocations against each other, example by example.

    Scores that are all 0 or 1 get McNemar's exact test (1947): of the examples that only one side got right, each side
    has half if the two are alike. Others get the exact sign-flip test (Fisher 1935): if the two are alike, every
    difference might as well have had the other sign. Neither needs many examples.

    Args:
        left: scores in [0, 1], one per example.
        right: the other side's, in the same order.

    Raises:
        ValueError: lengths differ or are 0.
    """
    difference = paired_difference(left, right)
    one, other = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    values = one - other
    values = values[np.abs(values) >= EQUAL]
    if np.isin(np.concatenate([one, other]), (0.0, 1.0)).all():
        p_value, test = _mcnemar(values), "McNemar's exact test"
    else:
        p_value, test = _sign_flips(values), f"sign-flip test, {FLIPS:,} flips"
    verdict: VerdictWord = "cannot be told apart"
    if p_value <= 1 - CONFIDENCE:
        if difference.low > 0:
            verdict = "better"
        elif difference.high < 0:
            verdict = "worse"
    return Distinction(verdict, difference, p_value, test, int(values.size))


def _mcnemar(values: Array) -> float:
    """Two-sided binomial test of the differing pairs against one half."""
    if not values.size:
        return 1.0
    return float(binomtest(int((values > 0).sum()), int(values.size), 0.5).pvalue)


def _sign_flips(values: Array) -> float:
    """Share of sign assignments whose sum is at least as far from 0, the one seen counted among them.

    That count keeps the test exact for any number of random flips (Phipson and Smyth 2010).
    """
    if not values.size:
        return 1.0
    generator = np.random.default_rng(SEED)
    signs = generator.integers(0, 2, (FLIPS, values.size), dtype=np.int8)
    sums = 2 * (signs @ values) - values.sum()
    as_far = np.abs(sums) >= abs(float(values.sum())) - EQUAL
    return float((as_far.sum() + 1) / (FLIPS + 1))


def plain_words(distinction: Distinction, subject: str, other: str) -> str:
    """The verdict as a sentence.

    Args:
        distinction: of the subject (left) and the other.
        subject: how the left side is called, to begin a sentence with: "The plan".
        other: how the right side is called: "the runner-up".
    """
    d = distinction.difference
    measured = (
        f"difference {d.estimate:+.3f}, 95% interval {d.low:+.3f} to {d.high:+.3f}, "
        f"p = {distinction.p_value:.2g} by {distinction.test}, {distinction.differing} of {d.examples} examples differ"
    )
    if distinction.verdict == "cannot be told apart":
        return f"{subject} cannot be told apart from {other} on these examples ({measured})."
    return f"{subject} is {distinction.verdict} than {other} ({measured})."
