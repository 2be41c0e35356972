"""Process-reward beam search."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from env.strategies._base import Candidate, Knob, StagePlan
from env.strategies._tree import Node, TreeStrategy

WIDTH = Knob(2, "continuations of every partial answer that is kept", 1, 1000)


class Beam(TreeStrategy):
    """Keeps the best ``N / width`` partial answers of all, and continues each `width` times."""

    name = "beam"
    meaning = "step-by-step beam search guided by the verifier"
    paper = "Snell et al. 2024, arXiv 2408.03314"
    knobs = MappingProxyType({"width": WIDTH})

    def grow(self, plan: StagePlan, nodes: Sequence[Node], slots: int) -> list[tuple[Node, int]]:
        """See `TreeStrategy.grow`."""
        width = min(plan.whole(self, "width"), plan.samples)
        kept = sorted((n for n in nodes if not n.finished), key=lambda n: -n.score)[: max(1, slots // width)]
        return [(node, min(width, slots)) for node in kept] if slots else []

    def choose(self, candidates: Sequence[Candidate]) -> str | None:
        """The best whole answer that can be read."""
        return best_readable(candidates)


def best_readable(candidates: Sequence[Candidate]) -> str | None:
    """The readable candidate with the highest score; among equals the first."""
    readable = [c for c in candidates if c.answer is not None]
    return max(readable, key=lambda c: c.score or 0.0).answer if readable else None
