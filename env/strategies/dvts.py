"""Diverse verifier tree search: independent subtrees, the best of each step in each."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from env.strategies._base import Candidate, StagePlan
from env.strategies._tree import Node, TreeStrategy
from env.strategies.beam import WIDTH, best_readable


class Dvts(TreeStrategy):
    """``N / width`` subtrees that do not compete: each keeps its best partial answer and continues it `width` times."""

    name = "dvts"
    meaning = "step-by-step search of independent subtrees guided by the verifier"
    paper = "Diverse verifier tree search: Beeching et al. 2024; Liu et al. 2025, arXiv 2502.06703"
    knobs = MappingProxyType({"width": WIDTH})

    def grow(self, plan: StagePlan, nodes: Sequence[Node], slots: int) -> list[tuple[Node, int]]:
        """See `TreeStrategy.grow`."""
        width = min(plan.whole(self, "width"), plan.samples)
        trees: dict[int, list[Node]] = {}
        for node in nodes:
            trees.setdefault(node.root // width, []).append(node)
        wanted: list[tuple[Node, int]] = []
        for own in trees.values():
            best = max(own, key=lambda n: n.score)
            # A subtree whose best answer is whole has ended; its other slots are not given to others.
            if not best.finished and slots > 0:
                count = min(width, slots)
                wanted.append((best, count))
                slots -= count
        return wanted

    def choose(self, candidates: Sequence[Candidate]) -> str | None:
        """The best whole answer that can be read."""
        return best_readable(candidates)
