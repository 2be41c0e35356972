"""Closed forms and simulated draws of a stage that votes, and of one that selects, for simulated pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Draws = NDArray[np.int8]

Kind = Literal["vote", "select"]
RIGHT, LURE, OTHER = 1, -1, 0
"""What a draw is: right, the one wrong answer that repeats itself (or convinces the verifier), or anything else."""

ORDERS = 8
"""Random orders over which the expected outcome of fewer samples is averaged."""


def success(kind: Kind, right: Array, lure: Array, counts: Sequence[int]) -> Array:
    """Probability that a stage of k samples is right, shape (len(counts), *right.shape).

    A vote is won where right answers outnumber the lure, half of it at a tie of at least one each. The margin is a
    random walk with steps +1 (`right`), -1 (`lure`) and 0, whose distribution is followed step by step.

    A selection is right where some sample is right and none convinces the verifier wrongly:
    ``(1 - lure)^k - (1 - lure - right)^k``, which rises with k and falls again.

    Args:
        kind: how the samples become one answer.
        right: probability of a right draw.
        lure: probability of the lure; right + lure <= 1.
        counts: numbers of samples, ascending.
    """
    if kind == "select":
        return np.stack([(1 - lure) ** k - (1 - lure - right) ** k for k in counts])
    most = max(counts)
    margin = np.zeros((2 * most + 1, *right.shape))
    margin[most] = 1.0
    still = 1 - right - lure
    silent = np.ones_like(right)
    found = []
    for k in range(1, most + 1):
        moved = still * margin
        moved[1:] += right * margin[:-1]
        moved[:-1] += lure * margin[1:]
        margin, silent = moved, silent * still
        if k in counts:
            found.append(margin[most + 1 :].sum(axis=0) + 0.5 * (margin[most] - silent))
    return np.stack(found)


def draw(generator: np.random.Generator, right: Array, lure: Array, count: int) -> Draws:
    """Seeded draws of each example, shape (examples, count)."""
    u = generator.random((len(right), count))
    return np.where(u < right[:, None], RIGHT, np.where(u < (right + lure)[:, None], LURE, OTHER)).astype(np.int8)


def outcome(kind: Kind, draws: Draws, coins: Array) -> NDArray[np.bool_]:
    """Whether each example's answer from all of its draws is right, shape (examples,); a coin breaks a tied vote."""
    if kind == "select":
        return np.asarray((draws == RIGHT).any(axis=-1) & ~(draws == LURE).any(axis=-1))
    margin = draws.sum(axis=-1)
    return np.asarray((margin > 0) | ((margin == 0) & (draws == RIGHT).any(axis=-1) & (coins < 0.5)))


def expected_outcomes(kind: Kind, draws: Draws, counts: Sequence[int], generator: np.random.Generator) -> Array:
    """Expected outcome of k of the held draws, averaged over random orders, shape (len(counts), examples)."""
    total = np.zeros((len(counts), len(draws)))
    for _ in range(ORDERS):
        order = generator.permuted(draws, axis=1)
        ahead = np.cumsum(order, axis=1, dtype=np.int64)
        right = np.maximum.accumulate(order == RIGHT, axis=1)
        lured = np.maximum.accumulate(order == LURE, axis=1)
        for row, k in enumerate(counts):
            if kind == "select":
                total[row] += right[:, k - 1] & ~lured[:, k - 1]
            else:
                total[row] += (ahead[:, k - 1] > 0) + 0.5 * ((ahead[:, k - 1] == 0) & right[:, k - 1])
    return total / ORDERS
