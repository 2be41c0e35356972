"""Best of n by a verifier's score, with its expectation over subsets in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from env.strategies._base import Candidate, Outcomes, check_subset


class BestOfN:
    """The readable candidate with the highest verifier score; among equals the one drawn first."""

    name = "best_of_n"
    needs_scores = True

    def choose(self, candidates: Sequence[Candidate]) -> str | None:
        """See `Strategy.choose`."""
        readable = [c for c in candidates if c.answer is not None]
        return max(readable, key=_score).answer if readable else None

    def outcomes(self, candidates: Sequence[Candidate], samples: int) -> Outcomes:
        """See `Strategy.outcomes`.

        With the n draws ranked ascending (unreadable ones lowest), the best of a random k-subset is the one of rank r
        (from 1) with probability ``C(r - 1, k - 1) / C(n, k)``. Draws of equal score share the probability of their
        block evenly, which is what "earliest drawn wins" gives over exchangeable draws.
        """
        check_subset(candidates, samples)
        total = comb(len(candidates), samples)
        ranked = sorted(candidates, key=_rank)
        result: dict[str | None, float] = {}
        start = 0
        while start < len(ranked):
            end = start
            while end < len(ranked) and _rank(ranked[end]) == _rank(ranked[start]):
                end += 1
            block = (comb(end, samples) - comb(start, samples)) / total
            for candidate in ranked[start:end]:
                if block > 0:
                    result[candidate.answer] = result.get(candidate.answer, 0.0) + block / (end - start)
            start = end
        return result


def _score(candidate: Candidate) -> float:
    if candidate.score is None:
        raise ValueError("best_of_n needs a verifier score for every readable candidate")
    return candidate.score


def _rank(candidate: Candidate) -> tuple[bool, float]:
    return (False, 0.0) if candidate.answer is None else (True, _score(candidate))
