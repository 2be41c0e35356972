"""Majority vote, with its expectation over subsets in closed form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import comb

from env.strategies._base import Candidate, Outcomes, StagePlan, check_subset
from env.strategies._parallel import ParallelStrategy, plurality


class Vote(ParallelStrategy):
    """The most frequent answer wins; among equals the one drawn first. Unreadable outputs do not vote."""

    name = "vote"
    meaning = "the most frequent answer of the samples"
    paper = "Self-consistency: Wang et al. 2022, arXiv 2203.11171"
    reads_texts = False

    def choose(self, plan: StagePlan, candidates: Sequence[Candidate]) -> str | None:
        """See `ParallelStrategy.choose`."""
        return plurality(candidates)[0]

    def outcomes(self, plan: StagePlan, candidates: Sequence[Candidate], samples: int) -> Outcomes:
        """See `Strategy.outcomes`; `plurality_probabilities` has the closed form."""
        check_subset(candidates, samples)
        counts = Counter(c.answer for c in candidates if c.answer is not None)
        silent = len(candidates) - sum(counts.values())
        ordered = counts.most_common()
        wins = plurality_probabilities(tuple(n for _, n in ordered), silent, samples)
        result: dict[str | None, float] = {answer: p for (answer, _), p in zip(ordered, wins, strict=True) if p > 0}
        nothing = comb(silent, samples) / comb(len(candidates), samples)
        if nothing > 0:
            result[None] = nothing
        return result


@lru_cache(maxsize=200_000)
def plurality_probabilities(counts: tuple[int, ...], silent: int, samples: int) -> tuple[float, ...]:
    """Probability that each answer wins a plurality vote over a random subset of draws.

    A subset of ``samples`` draws is taken without replacement from ``sum(counts) + silent`` draws, so the numbers of
    votes are multivariate hypergeometric. Answer a wins with j votes where no other has more; a tie of t is won by
    each with probability 1/t, which is what "earliest drawn wins" gives over exchangeable draws. With
    ``E_b(x) = sum_{i<j} C(c_b, i) x^i + y C(c_b, j) x^j`` the wanted number of subsets is
    ``sum_j C(c_a, j) [x^{k-j}] prod_{b != a} E_b(x) (1 + x)^silent`` with ``y^t`` weighted by ``1 / (t + 1)``.

    Args:
        counts: votes of each answer among all draws held, each at least 1.
        silent: draws held that cast no vote.
        samples: k, the size of the subset.

    Returns:
        One probability per answer, in the order of ``counts``; their sum is 1 less the chance that nobody votes.
    """
    total = comb(sum(counts) + silent, samples)
    # Answers with equal counts have equal chances: work once for each distinct count.
    chance: dict[int, float] = {}
    for count in set(counts):
        others = list(counts)
        others.remove(count)
        ways = sum(
            comb(count, j) * _others_at_most(tuple(sorted(others)), silent, j, samples - j)
            for j in range(1, min(count, samples) + 1)
        )
        chance[count] = ways / total
    return tuple(chance[count] for count in counts)


def _others_at_most(others: tuple[int, ...], silent: int, most: int, left: int) -> float:
    """Subsets of ``left`` draws of the others with at most ``most`` votes each, a t-fold tie at ``most`` over t + 1."""
    # ways[t][v]: number of subsets with v draws in which t of the others have exactly `most` votes.
    ways: list[list[int]] = [[comb(silent, v) for v in range(left + 1)]]
    for count in others:
        fresh = [[0] * (left + 1) for _ in range(len(ways) + 1)]
        for ties, row in enumerate(ways):
            for votes, number in enumerate(row):
                if not number:
                    continue
                for i in range(min(count, most, left - votes) + 1):
                    fresh[ties + (i == most)][votes + i] += number * comb(count, i)
        while len(fresh) > 1 and not any(fresh[-1]):
            fresh.pop()
        ways = fresh
    return sum(row[left] / (ties + 1) for ties, row in enumerate(ways))
