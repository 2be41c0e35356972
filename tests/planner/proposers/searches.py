"""Whole searches on landscapes with a known optimum, without an environment: what a proposer costs in trials."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from env.allocation import Allocation
from planner.history import CurveEstimate, Guideline, History, PendingView, RefusedView, TrialView
from planner.proposers import InsightProposer, Proposal, Proposer
from planner.review import review
from planner.space import SearchSpace
from tests.simulated import simulated_spec

NEAR = 0.998
"""Share of the optimum that ends a search."""


@dataclass(frozen=True)
class Landscape:
    """Stages that multiply, each saturating in its samples; levels and drops drawn by seed."""

    seed: int

    @cached_property
    def space(self) -> SearchSpace:
        return SearchSpace(simulated_spec())

    @cached_property
    def _quality(self) -> dict[tuple[str, str], tuple[float, float]]:
        dice = random.Random(f"landscape/{self.seed}")
        found = {}
        for stage in ("find", "read", "solve"):
            small = dice.uniform(0.5, 0.97)
            for model, level in (("small", small), ("large", min(0.99, small + dice.uniform(-0.05, 0.35)))):
                found[stage, model] = (level, dice.uniform(0.05, 0.5) * level)
        return found

    def truth(self, allocation: Allocation) -> float:
        value = 1.0
        for stage, s in allocation.settings:
            level, drop = self._quality[stage, s.model]
            edge = 1.02 if s.strategy == "best_of_n" and s.samples > 1 else 1.0
            value *= min(1.0, edge * (level - drop * s.samples**-0.7))
        return value

    @cached_property
    def optimum(self) -> float:
        return max(self.truth(a) for a in self.space.allocations())

    def measured(self, allocation: Allocation) -> float:
        """The truth with an error of 0.004, the same for the same allocation: trials share their examples."""
        noise = random.Random(f"{self.seed}/{allocation}").gauss(0.0, 0.004)
        return min(1.0, max(0.0, self.truth(allocation) + noise))

    def trial(self, number: int, round_: int, proposal: Proposal) -> TrialView:
        assert proposal.allocation is not None
        a = self.space.normal(proposal.allocation)
        curves = {
            stage: tuple(
                CurveEstimate(k, self.measured(self.space.normal(a.replace(stage, s.with_samples(k)))), 1.0)
                for k in (1, 2, 4, 8, 16)
                if k <= s.samples
            )
            for stage, s in a.settings
        }
        cost = self.space.total(a)
        return TrialView(
            number, round_, a, self.measured(a), 0.03, cost, cost, 10, curves,
            origin=proposal.origin, expected_score=proposal.expected_score,
        )  # fmt: skip


Think = Callable[[History, int], list[Proposal]]


@dataclass
class Search:
    """What a search came to."""

    trials: tuple[TrialView, ...]
    reached: int
    """Trials until the truth of one was within `NEAR` of the optimum; infinite where none was."""

    refused: int


async def search(proposer: Proposer, land: Landscape, batch: int = 3, most: int = 60) -> Search:
    """The loop of a study: initial trials, then reflect, propose, review, up to two attempts, fill."""
    policy = InsightProposer(land.space, land.seed, 3)
    trials: list[TrialView] = []
    refused: list[RefusedView] = []
    guidelines: tuple[Guideline, ...] = ()
    first = (await proposer.initial(History(0, ()))).proposals
    trials += [land.trial(i + 1, 0, p) for i, p in enumerate(first)]
    round_ = 0
    while _reached(trials, land) > len(trials) and len(trials) < most:
        round_ += 1
        past = History(round_, tuple(trials), tuple(refused), guidelines, most - len(trials))
        guidelines = (await proposer.reflect(past)).guidelines or guidelines
        accepted: list[Proposal] = []
        for attempt in range(3):
            room = batch - len(accepted)
            if room < 1:
                break
            now = [r for r in refused if r.round == round_]
            past = History(
                round_, tuple(trials), tuple(refused), guidelines, most - len(trials),
                pending=tuple(_pending(p) for p in accepted),
            )  # fmt: skip
            asked = await (proposer if attempt < 2 else policy).propose(past, room, now)
            verdicts = review(asked.proposals, land.space, past.tried, room)
            accepted += [v.proposal for v in verdicts if v.accepted]
            refused += [RefusedView(round_, v.allocation, v.proposal.raw, v.reason) for v in verdicts if not v.accepted]
        if not accepted:
            break
        trials += [land.trial(len(trials) + i + 1, round_, p) for i, p in enumerate(accepted)]
    return Search(tuple(trials), _reached(trials, land), len(refused))


def _pending(proposal: Proposal) -> PendingView:
    assert proposal.allocation is not None
    return PendingView(proposal.allocation, proposal.origin)


def _reached(trials: list[TrialView], land: Landscape) -> int:
    for number, trial in enumerate(trials, 1):
        if land.truth(trial.allocation) >= NEAR * land.optimum:
            return number
    return 10**9
