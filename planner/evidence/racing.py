"""Rules that stop a trial which can no longer become the plan, valid at whatever number of examples they are asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from planner.evidence.choice import NEGLIGIBLE

WRONG_STOP = 0.01
"""Probability, at most, that a trial which would have kept up with its rivals is stopped."""

LARGEST_BET = 0.75
"""Part of the wealth that a single example may cost."""


def highest_mean(scores: Sequence[float | None], examples: int) -> float:
    """The mean a trial reaches if it gets every remaining example right; examples that failed (None) are in no mean."""
    known = [s for s in scores if s is not None]
    left = examples - len(scores)
    return (math.fsum(known) + left) / max(1, len(known) + left)


def lowest_mean(scores: Sequence[float | None], examples: int) -> float:
    """The mean a trial keeps if it gets every remaining example wrong."""
    known = [s for s in scores if s is not None]
    return math.fsum(known) / max(1, len(known) + examples - len(scores))


def cannot_catch_up(scores: Sequence[float | None], rival_mean: float, examples: int) -> bool:
    """Whether not even a perfect rest brings a trial within `NEGLIGIBLE` of a rival; needs no statistics.

    Args:
        scores: of the trial so far.
        rival_mean: what the rival has or keeps at least.
        examples: of the whole split.
    """
    return highest_mean(scores, examples) < rival_mean - NEGLIGIBLE


def bets_exclude(differences: Sequence[float], examples: int, wrong: float) -> bool:
    """Whether the evidence so far excludes that a trial ends within `NEGLIGIBLE` of its rival on the whole split.

    A test by betting for sampling without replacement (Waudby-Smith and Ramdas 2024): wealth is staked on each
    difference lying below what the remaining ones must average if the trial were to catch up. While it can, wealth
    is a supermartingale, so that by Ville's inequality it ever reaches ``1 / wrong`` with a probability of at most
    `wrong`, however often one looks. Bets follow the mean and variance seen before (approximate GRAPA).

    Args:
        differences: trial minus rival in [-1, 1], example by example in a random order.
        examples: of the whole split.
        wrong: probability of excluding what would have happened.
    """
    least = (1 - NEGLIGIBLE) / 2
    wealth, total, squares = 1.0, 0.0, 0.0
    for seen, difference in enumerate(differences):
        value = (difference + 1) / 2
        # If the whole split averages `least`, the examples not yet seen average this.
        needed = (examples * least - total) / (examples - seen)
        if needed > 1:
            return True
        if needed <= 0:
            return False
        mean = (0.5 + total) / (1 + seen)
        variance = (0.25 + squares) / (1 + seen)
        edge = needed - mean
        bet = min(max(0.0, edge / (variance + edge * edge)), LARGEST_BET / max(1e-12, 1 - needed))
        wealth *= 1 - bet * (value - needed)
        if wealth >= 1 / wrong:
            return True
        total += value
        squares += (value - (0.5 + total) / (2 + seen)) ** 2
    remaining = examples - len(differences)
    return remaining > 0 and (examples * least - total) / remaining > 1
