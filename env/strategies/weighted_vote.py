"""Vote weighted by a verifier."""

from __future__ import annotations

from collections.abc import Sequence

from env.strategies._base import Candidate, StagePlan
from env.strategies._parallel import ParallelStrategy, heaviest


class WeightedVote(ParallelStrategy):
    """The answer whose replies have the largest sum of verifier scores; among equals the one drawn first."""

    name = "weighted_vote"
    meaning = "the answer with the largest sum of verifier scores"
    paper = "Verifier voting: Li et al. 2023, arXiv 2206.02336"
    requires = frozenset({"verifier"})
    scored = True

    def choose(self, plan: StagePlan, candidates: Sequence[Candidate]) -> str | None:
        """See `ParallelStrategy.choose`."""
        return heaviest(candidates)
