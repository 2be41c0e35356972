"""LLMSelector: pass over the stages, giving each its best setting with the others held, until nothing changes."""

from __future__ import annotations

import random
from collections.abc import Sequence

from env.allocation import Allocation, StageSetting
from env.spec import StageSpec
from planner.history import History, RefusedView
from planner.proposers._base import Proposal, Suggestions
from planner.proposers.rivals.moves import changed, neighbours
from planner.proposers.rivals.rival import Rival, fresh_sample, known_allocations

MAX_STARTS = 40
"""Passes begun in one study: the first from uniform allocations, the others from random ones."""

Rank = tuple[float, float]
"""Score, then minus cost: the cheaper of equals."""


class LlmSelectorProposer(Rival):
    """Coordinate ascent over the stages (LLMSelector, arXiv 2502.14815).

    It starts from the best of the uniform allocations (one model everywhere, one sample). Stage by stage it tries
    every other model with the others as they are, keeps the best, and passes over the stages again until a whole
    pass changes nothing. The paper chooses models only; here a stage also tries one number of samples up and down, its
    other strategies and the other values of its knobs, each alone, and a model that is too dear for the samples at hand
    is tried with the nearest number that fits.

    The paper lets an LLM judge how well a module did its part, which saves runs of the whole system. Trials have the
    end scores here that such a judgement stands in for, so no LLM is asked. A batch that one stage does not fill goes
    on with the next stages' trials around the same allocation. A search with trials left when nothing changes any more
    starts again from a random allocation; the paper stops.
    """

    kind = "llmselector"

    async def initial(self, history: History) -> Suggestions:
        """The uniform allocations that the budget buys; the cheapest allocation where it buys none."""
        return Suggestions(tuple(Proposal(a, self.kind, "one model in every stage") for a in self._uniform()))

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""
        known = known_allocations(history, refused)
        ranks: dict[Allocation, Rank] = {t.allocation: (t.score, -t.cost) for t in history.trials}
        wanted: dict[Allocation, str] = {}
        for start in range(MAX_STARTS):
            self._pass(self._starts(start), ranks, known, wanted)
            if len(wanted) >= count:
                break
        proposals = [Proposal(a, self.kind, reason) for a, reason in wanted.items()][:count]
        generator = self._generator(history, refused)
        rest = self._at_random(
            generator, known | set(wanted), count - len(proposals), "drawn at random: all passes end"
        )
        return Suggestions((*proposals, *rest))

    def _pass(
        self,
        starts: Sequence[Allocation],
        ranks: dict[Allocation, Rank],
        known: set[Allocation],
        wanted: dict[Allocation, str],
    ) -> None:
        """Replay the search from its starts by the scores known; add to `wanted` what it asks for next."""
        wanted.update({a: "a start of a pass" for a in starts if a not in known and a not in wanted})
        scored = [a for a in starts if a in ranks]
        if not scored:
            return
        best = max(scored, key=lambda a: ranks[a])
        moved, waiting = True, False
        while moved and not waiting:
            moved = False
            for stage in self._space.pipeline.stages:
                candidates = self._candidates(best, stage)
                fresh = [a for a in candidates if a not in known and a not in wanted]
                reason = f"{stage.name}: one change at a time, the other stages as in the best so far"
                wanted.update(dict.fromkeys(fresh, reason))
                # Until these have run the stage is not decided; what later stages want is asked around the same best.
                waiting = waiting or any(a in wanted for a in candidates)
                better = max((a for a in (best, *candidates) if a in ranks), key=lambda a: ranks[a])
                if not waiting and better != best:
                    best, moved = better, True

    def _candidates(self, allocation: Allocation, stage: StageSpec) -> list[Allocation]:
        setting = allocation[stage.name]
        found: list[StageSetting] = []
        for part, settings in neighbours(stage, setting).items():
            found += settings if part != "model" else self._nearest_affordable(allocation, stage, settings)
        moves = [self._space.normal(allocation.replace(stage.name, s)) for s in found]
        return [a for a in dict.fromkeys(moves) if a != allocation and not self._space.faults(a)]

    def _nearest_affordable(
        self, allocation: Allocation, stage: StageSpec, settings: Sequence[StageSetting]
    ) -> list[StageSetting]:
        """Each model with the most samples up to those at hand that the budget buys, else the fewest."""
        nearest: list[StageSetting] = []
        for setting in settings:
            fewer = [changed(stage, setting, samples=k) for k in stage.samples.values() if k <= setting.samples]
            within = [s for s in fewer if not self._space.faults(allocation.replace(stage.name, s))]
            nearest += within[-1:]
        return nearest

    def _starts(self, number: int) -> list[Allocation]:
        if number == 0:
            return self._uniform()
        return fresh_sample(self._space, random.Random(f"{self._seed}/start/{number}"), set(), 1)

    def _uniform(self) -> list[Allocation]:
        stages = self._space.pipeline.stages
        common = [m for m in self._space.pipeline.models if all(m in s.models for s in stages)]
        found = [
            Allocation.of({s.name: self._fewest(s, [c for c in self._space.settings[s.name] if c.model == m])
                           for s in stages})
            for m in common
            if all(any(c.model == m for c in self._space.settings[s.name]) for s in stages)
        ]  # fmt: skip
        affordable = [a for a in found if not self._space.faults(a)]
        return affordable or [next(self._space.allocations())]

    def _fewest(self, stage: StageSpec, settings: Sequence[StageSetting]) -> StageSetting:
        return min(settings, key=lambda s: (s.samples, self._space.price(stage.name, s), s))
