"""The insight policy: proposes without an LLM, by the three insights of AgentTTS over everything seen so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation
from planner.history import Guideline, History, PastStudy, RefusedView, TrialView, best_of
from planner.proposers._base import Proposal, Reflection, Suggestions
from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.candidates import Candidates
from planner.proposers.guidelines import RuleGuidelines
from planner.proposers.observations import Observation, from_log, observations, past_observations
from planner.proposers.spending import NewDraws
from planner.proposers.stage_tables import Array, StageTables
from planner.proposers.surrogate import Surrogate
from planner.proposers.threads import one_thread
from planner.space import SearchSpace

SHORTLIST = 240
"""Candidates whose joint posterior is sampled; the others cannot compete."""

OPTIMISM = 1.5
"""Posterior deviations added to the mean when the shortlist is drawn up."""

TRIED = 20
"""Best trials sampled along with the candidates: what a candidate must beat."""

SAMPLES = 512
"""Joint draws of the shortlist's scores."""

CLOSE = 0.01
"""Score below the optimum that is good enough."""

GAIN_SHARE = 0.3
"""Weight of a unit of expected improvement beside the probability of coming close."""

THRIFT = 0.3
"""Exponent of the price of a candidate's new draws while nothing is known: 0 counts trials only, 1 draws only. It
falls to 0 as some candidate becomes certain to end the search: then it is worth its draws."""


class InsightProposer:
    """Asks which trial is most likely to end the search, under a surrogate with the insights as structure.

    The surrogate carries what each stage's model is worth (1), gains that saturate in k (2), interaction between
    stages (3), each known from trials and k-curves; before the first trial its prior speaks, so the first allocation
    is a sensible one already. From joint draws of the scores of all serious candidates, a candidate's value is the
    probability that it lies within `CLOSE` of the best where no trial does yet, and a share of its expected
    improvement, divided by a power of what its new draws cost: settings that the bank holds draws of come cheap, and
    while little is known cheap ones are looked at first.
    A batch is filled so that its members end the search in different draws.

    Args:
        space: what may be proposed.
        seed: of the posterior draws.
        batch: size of the first batch.
        ablation: parts of the method to do without.
    """

    kind = "insight"

    def __init__(self, space: SearchSpace, seed: int, batch: int = 4, *, ablation: Ablation = NOTHING) -> None:
        self._space = space
        self._seed = seed
        self._initial = batch
        self._ablation = ablation
        self._tables = StageTables(space, ablation)
        self._candidates = Candidates(space, self._tables, seed)
        self._guidelines = RuleGuidelines(space, ablation)
        self._past: tuple[tuple[PastStudy, ...], list[Observation]] = ((), [])
        self._fit: tuple[tuple[TrialView, ...], tuple[PastStudy, ...], Surrogate] | None = None
        """The newest surrogate and what it was fitted to: a round reflects and proposes on the same trials."""

    async def initial(self, history: History) -> Suggestions:
        """See `Proposer.initial`."""
        return await self.propose(history, self._initial, ())

    async def reflect(self, history: History) -> Reflection:
        """See `Proposer.reflect`."""
        return Reflection((*self._guidelines.of(history), *self._trusted(history)))

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""
        with one_thread():
            return self._proposed(history, count, refused)

    def _proposed(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        taken = history.tried | {r.allocation for r in refused if r.allocation is not None}
        surrogate = self._surrogate(history)
        near = self._single_changes(history) if self._ablation.without_insight_3 else None
        found = self._candidates.shortlist(surrogate, history, taken, SHORTLIST, OPTIMISM, near)
        if not found.allocations:
            return Suggestions((), expected_gain=0.0)
        return self._batch(history, surrogate, found.allocations, found.mean, count)

    async def close(self) -> None:
        """See `Proposer.close`."""

    def _trusted(self, history: History) -> tuple[Guideline, ...]:
        """How far earlier studies are believed after the trials of this one, where there are any."""
        if not history.past or not history.trials:
            return ()
        with one_thread():
            trust = self._surrogate(history).trust
        names = ", ".join(f"{study.name} ({study.study_id}, {len(study.trials)} trials)" for study in history.past)
        text = f"Warm start: what settings were worth in earlier studies is taken to hold here to {trust:.0%}: {names}."
        structured = {"warm_start": [study.study_id for study in history.past], "trust": round(trust, 3)}
        return (Guideline(history.round, 0, text, None, structured),)

    def _surrogate(self, history: History) -> Surrogate:
        # Views that have not changed are the same objects, so that comparing thousands takes no time.
        if self._fit is None or self._fit[:2] != (history.trials, history.past):
            curves = not (self._ablation.without_insight_2 or self._ablation.without_bank)
            if history.past != self._past[0]:
                self._past = history.past, past_observations(history.past, self._space)
            data = observations(history.trials, curves) + self._past[1]
            surrogate = Surrogate(data, tables=self._tables, joint=not self._ablation.without_insight_3)
            self._fit = history.trials, history.past, surrogate
        return self._fit[2]

    def _single_changes(self, history: History) -> list[Allocation]:
        """Without insight 3: the best so far with one stage changed."""
        best = history.best
        if best is None:
            return []
        changed = [
            best.allocation.replace(stage, setting)
            for stage in best.allocation.stages
            for setting in self._space.settings[stage]
        ]
        return [a for a in changed if not self._space.faults(a)]

    def _batch(
        self, history: History, surrogate: Surrogate, candidates: Sequence[Allocation], mean: Array, count: int
    ) -> Suggestions:
        generator = np.random.default_rng([self._seed, history.round, len(history.trials), len(history.refused)])
        # What is accepted and has not run must be beaten too, by what it may turn out to score.
        tried = [t.allocation for t in best_of(history.able, TRIED)]
        tried += [p.allocation for p in history.pending if not p.problem]
        drawn = from_log(surrogate.sample(self._tables.places([*candidates, *tried]), SAMPLES, generator))
        scores, incumbent = drawn[:, : len(candidates)], drawn[:, len(candidates) :].max(axis=1, initial=0.0)
        price = NewDraws(history.trials, reused=not self._ablation.without_bank).relative(candidates)
        gains = np.maximum(scores - incumbent[:, None], 0.0).mean(axis=0)
        picks = _pick(scores, incumbent, price, min(count, len(candidates)))
        proposals = tuple(self._proposal(history, candidates[i], float(mean[i]), float(gains[i])) for i in picks)
        return Suggestions(proposals, expected_gain=float(gains.max()))

    def _proposal(self, history: History, allocation: Allocation, expected: float, gain: float) -> Proposal:
        best = history.best
        if best is None:
            reason = f"what such models and samples are worth as a rule; expected {expected:.3f}"
            return Proposal(allocation, "insight", reason, expected)
        changes = [
            f"{stage} {best.allocation[stage]} -> {allocation[stage]}"
            for stage in allocation.stages
            if allocation[stage] != best.allocation[stage]
        ]
        reason = f"from the best so far: {'; '.join(changes)}; expected {expected:.3f}, expected gain {gain:.4f}"
        return Proposal(allocation, "insight", reason, expected)


def _pick(scores: Array, incumbent: Array, price: Array, count: int) -> list[int]:
    """Fill a batch greedily: each member ends the search in draws where none before it does.

    Args:
        scores: draws of the candidates' scores, shape (draws, candidates).
        incumbent: best score of what was tried, by draw.
        price: by candidate; its value is divided by a power of it (`THRIFT`).
        count: how many to pick.
    """
    best = np.maximum(scores.max(axis=1), incumbent)
    close: NDArray[np.bool_] = scores >= best[:, None] - CLOSE
    open_ = incumbent < best - CLOSE
    free = np.ones(scores.shape[1], dtype=bool)
    picks: list[int] = []
    for _ in range(count):
        gain = np.maximum(scores - incumbent[:, None], 0.0).mean(axis=0)
        value = (close & open_[:, None]).mean(axis=0) + GAIN_SHARE * gain
        certainty = min(1.0, float(value.max()) / max(float(open_.mean()), 1e-9))
        value = value / price ** (THRIFT * (1 - certainty))
        pick = int(np.argmax(np.where(free, value, -np.inf)))
        picks.append(pick)
        free[pick] = False
        open_ &= ~close[:, pick]
        incumbent = np.maximum(incumbent, scores[:, pick])
    return picks
