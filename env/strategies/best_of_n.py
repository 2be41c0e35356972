"""Best of n by a verifier's score, with its expectation over subsets in closed form."""

from __future__ import annotations

from collections.abc import Sequence

from env.strategies._base import Candidate, Outcomes, StagePlan, check_subset
from env.strategies._parallel import ParallelStrategy, ranked_outcomes, single_outcomes


class BestOfN(ParallelStrategy):
    """The readable candidate with the highest verifier score; among equals the one drawn first.

    The verifier is a reward model, an LLM that judges, or any other model of the pipeline that gives scores.
    """

    name = "best_of_n"
    meaning = "the sample that a verifier model scores highest (its passes are part of the cost)"
    paper = "Cobbe et al. 2021, arXiv 2110.14168"
    requires = frozenset({"verifier"})
    scored = True

    def choose(self, plan: StagePlan, candidates: Sequence[Candidate]) -> str | None:
        """See `ParallelStrategy.choose`."""
        readable = [c for c in candidates if c.answer is not None]
        return max(readable, key=_score).answer if readable else None

    def outcomes(self, plan: StagePlan, candidates: Sequence[Candidate], samples: int) -> Outcomes:
        """See `Strategy.outcomes`; `ranked_outcomes` has the closed form, unreadable candidates rank lowest."""
        check_subset(candidates, samples)
        return single_outcomes(candidates) if samples == 1 else ranked_outcomes(candidates, samples, _rank)


def _score(candidate: Candidate) -> float:
    if candidate.score is None:
        raise ValueError("best_of_n needs a verifier score for every readable candidate")
    return candidate.score


def _rank(candidate: Candidate) -> tuple[float, ...]:
    return (0.0, 0.0) if candidate.answer is None else (1.0, _score(candidate))
