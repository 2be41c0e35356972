"""The exact optimum of a sum over stages within a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_COMBINED = 4000
"""Combinations of all stages but one that are tried one by one, for every draw."""


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


def best_of_draws(values: Sequence[Array], prices: Sequence[Array], limit: float) -> list[tuple[int, ...]]:
    """`best_within` for many draws of the values at once; draws without any choice within the limit are left out.

    Prices are the same in all draws. So where the other stages have few combinations, each is tried: what it leaves
    buys the best of a beginning of the last stage's choices, cheapest first, and how long that beginning is does not
    depend on the draw.

    Args:
        values: by stage, shape (draws, choices).
        prices: by stage, shape (choices,).
        limit: of the sum of prices.
    """
    last = max(range(len(prices)), key=lambda stage: len(prices[stage]))
    others = [stage for stage in range(len(prices)) if stage != last]
    if math.prod(len(prices[stage]) for stage in others) > MOST_COMBINED:
        found = [best_within([of[i] for of in values], prices, limit) for i in range(len(values[0]))]
        return [row for row in found if row is not None]
    spent, worth = np.zeros(1), np.zeros((len(values[0]), 1))
    for stage in others:
        spent = (spent[:, None] + prices[stage]).ravel()
        worth = (worth[:, :, None] + values[stage][:, None, :]).reshape(len(worth), -1)
    order = np.argsort(prices[last], kind="stable")
    affordable = np.searchsorted(prices[last][order], limit * (1 + 1e-12) - spent, side="right")
    combined = np.flatnonzero(affordable)
    if not len(combined):
        return []
    sorted_values = values[last][:, order]
    highest = np.maximum.accumulate(sorted_values, axis=1)
    total = worth[:, combined] + highest[:, affordable[combined] - 1]
    best = combined[np.argmax(total, axis=1)]
    rows, rest = np.empty((len(best), len(prices)), dtype=np.int64), best
    for stage in reversed(others):
        rest, rows[:, stage] = np.divmod(rest, len(prices[stage]))
    for i, draw in enumerate(sorted_values):
        rows[i, last] = order[int(np.argmax(draw[: affordable[best[i]]]))]
    return [tuple(row) for row in rows.tolist()]


def undominated(prices: Array, values: Array) -> NDArray[np.int64]:
    """Positions of the pairs that no other beats in value at the same or a lower price, cheapest first."""
    order = np.lexsort((-values, prices))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], values[order][:-1]]))
    return np.asarray(order[values[order] > best], dtype=np.int64)
