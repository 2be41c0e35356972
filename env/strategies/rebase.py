"""Reward-balanced search: continuations in proportion to softmaxed rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType

from env.strategies._base import Candidate, Knob, StagePlan
from env.strategies._parallel import heaviest
from env.strategies._tree import Node, TreeStrategy


class Rebase(TreeStrategy):
    """Gives every unfinished partial answer its share ``softmax(score / temperature)`` of the slots that are left."""

    name = "rebase"
    meaning = "step-by-step search that spreads samples over partial answers by their reward"
    paper = "REBASE: Wu et al. 2024, arXiv 2408.00724"
    knobs = MappingProxyType(
        {"temperature": Knob(0.2, "balance: low gives all to the best, high spreads evenly", 0.001, 100.0)}
    )

    def grow(self, plan: StagePlan, nodes: Sequence[Node], slots: int) -> list[tuple[Node, int]]:
        """See `TreeStrategy.grow`."""
        alive = [node for node in nodes if not node.finished]
        if not alive or slots <= 0:
            return []
        return list(zip(alive, shares([n.score for n in alive], plan.number(self, "temperature"), slots), strict=True))

    def choose(self, candidates: Sequence[Candidate]) -> str | None:
        """The answer with the largest sum of rewards, as in the paper."""
        return heaviest(candidates)


def shares(scores: Sequence[float], temperature: float, slots: int) -> list[int]:
    """Slots in proportion to ``exp(score / temperature)``, whole and `slots` in all (largest remainders)."""
    top = max(scores)
    weights = [math.exp((score - top) / temperature) for score in scores]
    exact = [slots * weight / sum(weights) for weight in weights]
    counts = [math.floor(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for place in order[: slots - sum(counts)]:
        counts[place] += 1
    return counts
