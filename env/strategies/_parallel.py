"""Strategies that draw all samples of one prompt at once and put them together: the answer is a function of a set."""

from __future__ import annotations

import json
import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from math import comb, perm

from env.calls import Call
from env.strategies._base import Candidate, Outcomes, Procedure, StagePlan, StageRun, Strategy, check_subset

MAX_SUBSETS = 64
"""Ordered subsets looked at where there is no closed form: all where there are no more, else as many seeded ones."""


class ParallelStrategy(Strategy):
    """Draws `samples` replies of the stage's prompt, has them scored where it needs that, and chooses."""

    scored = False
    """Whether every candidate must carry a verifier's score."""

    @abstractmethod
    def choose(self, plan: StagePlan, candidates: Sequence[Candidate]) -> str | None:
        """The answer these candidates (in draw order) give; None where none of them has one."""

    def procedure(self, run: StageRun) -> Procedure:
        """See `Strategy.procedure`."""
        (draws,) = yield [run.ask(run.samples)]
        scores: list[float | None] = [None] * len(draws)
        if self.scored and len(draws) > 1:
            replies = yield [run.judge(draw.text) for draw in draws]
            scores = [reply[0].score for reply in replies]
        candidates = [run.candidate(draw, score) for draw, score in zip(draws, scores, strict=True)]
        return candidates[0].answer if len(candidates) == 1 else self.choose(run, candidates)

    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """The prompt once and each sample; scored ones add a pass of the verifier over prompt and reply for each."""
        drawn = Call(plan.setting.model, plan.prompt, plan.output, plan.samples)
        if not self.scored or plan.samples == 1:
            return (drawn,)
        return (drawn, Call(plan.verifier, plan.prompt + plan.output, 0.0, 0, plan.samples))

    def outcomes(self, plan: StagePlan, candidates: Sequence[Candidate], samples: int) -> Outcomes | None:
        """See `Strategy.outcomes`; by looking at subsets, for strategies that have no closed form."""
        check_subset(candidates, samples)
        if samples == 1:
            return single_outcomes(candidates)
        return subset_outcomes(candidates, samples, lambda chosen: self.choose(plan, chosen))


def single_outcomes(candidates: Sequence[Candidate]) -> Outcomes:
    """Distribution of one draw's answer."""
    counts = Counter(c.answer for c in candidates)
    return {answer: number / len(candidates) for answer, number in counts.items()}


def subset_outcomes(
    candidates: Sequence[Candidate], samples: int, choose: Callable[[Sequence[Candidate]], str | None]
) -> Outcomes:
    """Distribution of a choice over random ordered subsets; exact for up to `MAX_SUBSETS` of them, else seeded."""
    ordered = sorted(candidates, key=_order)
    if perm(len(ordered), samples) <= MAX_SUBSETS:
        found = Counter(choose(subset) for subset in permutations(ordered, samples))
    else:
        # Seeded by the candidates themselves: the same draws always give the same estimate.
        generator = random.Random(json.dumps([[_order(c) for c in ordered], samples]))
        found = Counter(choose(generator.sample(ordered, samples)) for _ in range(MAX_SUBSETS))
    total = sum(found.values())
    return {answer: number / total for answer, number in found.items()}


def ranked_outcomes(
    candidates: Sequence[Candidate], samples: int, rank: Callable[[Candidate], tuple[float, ...]]
) -> Outcomes:
    """Distribution of the answer of the highest-ranked candidate of a random subset, in closed form.

    With the n draws ranked ascending, the best of a random k-subset is the one of rank r (from 1) with probability
    ``C(r - 1, k - 1) / C(n, k)``. Draws of equal rank share the probability of their block evenly, which is what
    "earliest drawn wins" gives over exchangeable draws.
    """
    total = comb(len(candidates), samples)
    ranked = sorted(candidates, key=rank)
    result: dict[str | None, float] = {}
    start = 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and rank(ranked[end]) == rank(ranked[start]):
            end += 1
        block = (comb(end, samples) - comb(start, samples)) / total
        for candidate in ranked[start:end]:
            if block > 0:
                result[candidate.answer] = result.get(candidate.answer, 0.0) + block / (end - start)
        start = end
    return result


def plurality(candidates: Sequence[Candidate]) -> tuple[str | None, int]:
    """The most frequent answer and its votes; among equals the one drawn first. Unreadable outputs do not vote."""
    counts = Counter(c.answer for c in candidates if c.answer is not None)
    # Counter keeps first-seen order and max returns the first of equals: the earliest drawn.
    return max(counts.items(), key=lambda item: item[1]) if counts else (None, 0)


def heaviest(candidates: Sequence[Candidate]) -> str | None:
    """The answer with the largest sum of scores; among equals the one drawn first."""
    weights: dict[str, float] = {}
    for candidate in candidates:
        if candidate.answer is not None:
            weights[candidate.answer] = weights.get(candidate.answer, 0.0) + (candidate.score or 0.0)
    return max(weights, key=weights.__getitem__) if weights else None


def _order(candidate: Candidate) -> tuple[str, float, float, int]:
    return (candidate.answer or "", candidate.score or 0.0, candidate.logprob or 0.0, candidate.tokens)
