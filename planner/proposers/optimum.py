"""The exact optimum of a sum over stages within a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def best_within(values: Sequence[Array], prices: Sequence[Array], limit: float) -> tuple[int, ...] | None:
    """One choice for each stage with the highest sum of values whose prices sum to at most `limit`.

    This is the multiple-choice knapsack problem, solved exactly: the undominated (price, value) pairs of the stages so
    far are merged with those of the next stage, and what is dominated or cannot be completed within the limit is
    dropped (Nemhauser and Ullmann 1969). Of equal sums the cheaper one is taken.

    Args:
        values: by stage, what each choice is worth, shape (choices,).
        prices: by stage, what each costs, at least 0, same shapes.
        limit: of the sum of prices.

    Returns:
        The position of each stage's choice; None where the cheapest choices exceed the limit.
    """
    allowed = limit * (1 + 1e-12)
    floors = [float(p.min()) for p in prices]
    price, value = np.zeros(1), np.zeros(1)
    steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for stage, (worth, cost) in enumerate(zip(values, prices, strict=True)):
        kept = undominated(cost, worth)
        total = price[:, None] + cost[kept][None, :]
        gained = value[:, None] + worth[kept][None, :]
        flat = np.flatnonzero(total.ravel() + sum(floors[stage + 1 :]) <= allowed)
        if not len(flat):
            return None
        flat = flat[undominated(total.ravel()[flat], gained.ravel()[flat])]
        steps.append((flat // len(kept), kept[flat % len(kept)]))
        price, value = total.ravel()[flat], gained.ravel()[flat]
    position = int(np.argmax(value))
    chosen: list[int] = []
    for before, choice in reversed(steps):
        chosen.append(int(choice[position]))
        position = int(before[position])
    return tuple(reversed(chosen))


def undominated(prices: Array, values: Array) -> NDArray[np.int64]:
    """Positions of the pairs that no other beats in value at the same or a lower price, cheapest first."""
    order = np.lexsort((-values, prices))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], values[order][:-1]]))
    return np.asarray(order[values[order] > best], dtype=np.int64)
