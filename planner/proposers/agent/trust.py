"""How much of a batch the LLM may fill, so that a bad one costs a bounded number of trials."""

from __future__ import annotations

from planner.history import History
from planner.proposers.digest import earned

ORIGIN = "agent"

WASTE = 1 / 4
"""Trials the LLM may have wasted for each trial that was not. A quarter keeps a study with a useless LLM at 5/4 of the
trials that the insight policy needs alone, below the promised 3/2 with room for rounding to whole batches, and leaves
the LLM a fifth of the trials in which to win back trust."""


def allowance(history: History, count: int) -> int:
    """How many of the next `count` allocations the LLM may propose; the insight policy has the rest.

    A trial of the LLM is wasted unless it earned its place (`planner.proposers.digest.earned`). With W wasted and U
    other trials, ``a`` of the next `count` may be its own while ``W + a <= WASTE * (U + count - a)``: even if all of
    them are wasted too, the bound holds. Of two and more allocations the policy always has one, as what the LLM's are
    held against.

    Args:
        history: the trials, each with its origin; those not yet run count as wasted.
        count: at least 1.
    """
    worth = earned(history.trials, ORIGIN)
    waiting = sum(p.origin == ORIGIN for p in history.pending)
    wasted = len(worth) - sum(worth) + waiting
    other = len(history.trials) + len(history.pending) - wasted
    most = int((WASTE * (other + count) - wasted) / (1 + WASTE) + 1e-9)
    return max(0, min(most, count if count == 1 else count - 1))
