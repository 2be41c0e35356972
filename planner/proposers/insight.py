"""The insight policy: proposes without an LLM, by the three insights of AgentTTS over everything seen so far."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from env.allocation import Allocation
from planner.history import History, RefusedView
from planner.proposers._base import Proposal, Reflection, Suggestions
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.guidelines import insight_guidelines
from planner.proposers.initial import initial_trials
from planner.proposers.surrogate import Array, Observation, Surrogate, from_log, observations, to_log
from planner.space import MAX_ENUMERATED, SearchSpace

MAX_CANDIDATES = 20_000
"""Allocations scored in a round; larger spaces are sampled, and the neighbours of the best always kept."""

FANTASY_NOISE = 0.02


class InsightProposer:
    """Initial trials by insight 1, then expected relative improvement over a surrogate of trials and k-curves.

    The surrogate carries the insights as structure: what each stage's model is worth (1), gains that saturate in k (2),
    interaction between stages under one budget (3). A batch is filled one by one, each choice taken for granted at its
    predicted score before the next ("kriging believer", Ginsbourger et al. 2010), so that it spreads.
    """

    kind = "insight"

    def __init__(self, space: SearchSpace, seed: int, *, ablation: Ablation = NOTHING) -> None:
        self._space = space
        self._seed = seed
        self._ablation = ablation

    async def initial(self, history: History) -> Suggestions:
        """See `Proposer.initial`."""
        return Suggestions(initial_trials(self._space))

    async def reflect(self, history: History) -> Reflection:
        """See `Proposer.reflect`."""
        return Reflection(tuple(insight_guidelines(self._space, history, self._ablation)))

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""
        taken = history.tried | {r.allocation for r in refused if r.allocation is not None}
        candidates = [a for a in self._candidates(history) if a not in taken]
        if not candidates:
            return Suggestions(())
        if not history.trials:
            return Suggestions(tuple(p for p in initial_trials(self._space) if p.allocation not in taken)[:count])
        return Suggestions(tuple(self._batch(history, candidates, count)))

    async def close(self) -> None:
        """See `Proposer.close`."""

    def _candidates(self, history: History) -> list[Allocation]:
        if self._space.size(MAX_ENUMERATED) <= MAX_CANDIDATES:
            return list(self._space.allocations())
        generator = random.Random(f"{self._seed}/{history.round}")
        sampled = self._space.sample(generator, MAX_CANDIDATES // 2)
        near = [a for t in sorted(history.trials, key=lambda t: -t.score)[:5] for a in self._neighbours(t.allocation)]
        return list(dict.fromkeys([*near, *sampled]))

    def _neighbours(self, allocation: Allocation) -> list[Allocation]:
        """All feasible changes of one stage, and of two stages at once for the nearest settings."""
        changed = [
            allocation.replace(stage, setting) for stage in allocation.stages for setting in self._space.settings[stage]
        ]
        return [a for a in changed if self._space.total(a) <= self._space.limit * (1 + 1e-12)]

    def _batch(self, history: History, candidates: list[Allocation], count: int) -> list[Proposal]:
        data = observations(history.trials)
        best = float(to_log(max(t.score for t in history.trials)))
        costs = np.array([self._space.total(a) for a in candidates]) / self._space.limit
        waiting = [p.allocation for p in history.pending if not p.problem]
        if waiting:
            # What is accepted and has not run is taken for granted like a choice of this batch.
            predicted, _ = Surrogate(data).predict(waiting)
            data += [Observation(a, float(from_log(m)), FANTASY_NOISE) for a, m in zip(waiting, predicted, strict=True)]
            best = max(best, float(predicted.max()))
        proposals: list[Proposal] = []
        open_ = np.ones(len(candidates), dtype=bool)
        for _ in range(min(count, len(candidates))):
            surrogate = Surrogate(data)
            mean, deviation = surrogate.predict(candidates)
            gain = expected_improvement(mean, deviation, best)
            # Among equal gains the cheaper one; far below the noise of any trial.
            value = np.where(open_, gain - 1e-6 * costs, -np.inf)
            pick = int(np.argmax(value))
            open_[pick] = False
            allocation, expected = candidates[pick], float(from_log(mean[pick]))
            proposals.append(
                Proposal(
                    allocation, "insight", self._reason(history, allocation, expected, float(gain[pick])), expected
                )
            )
            data = [*data, Observation(allocation, expected, FANTASY_NOISE)]
            best = max(best, float(mean[pick]))
        return proposals

    def _reason(self, history: History, allocation: Allocation, expected: float, gain: float) -> str:
        best = history.best
        if best is None:
            return f"expected {expected:.3f}"
        changes = [
            f"{stage} {best.allocation[stage]} -> {allocation[stage]}"
            for stage in allocation.stages
            if allocation[stage] != best.allocation[stage]
        ]
        return f"from the best so far: {'; '.join(changes)}; expected {expected:.3f}, expected gain {100 * gain:.1f}%"


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Expected improvement over `best` (Jones et al. 1998), shape (n,)."""
    z = (mean - best) / deviation
    improvement: Array = deviation * (z * norm.cdf(z) + norm.pdf(z))
    return improvement
