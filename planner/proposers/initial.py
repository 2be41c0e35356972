"""The paper's initial trials: each candidate model of each stage, at the cost of one sample of the stage's largest."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product, zip_longest

from env.allocation import Allocation, StageSetting
from env.spec import StageSpec
from planner.proposers._base import Proposal
from planner.space import SearchSpace

MAX_SAMPLES = 60
"""Cap of AgentTTS (arXiv 2508.00890) on the samples of an initial trial."""


def initial_trials(space: SearchSpace) -> tuple[Proposal, ...]:
    """Insight 1: one trial for each stage, candidate model and strategy, at equal compute for the stage looked at.

    The stage gets the cost of one sample of its largest model, or what the budget leaves when the others take their
    cheapest setting; that cost is turned into samples of the model at hand. Every other stage takes its largest model
    once if the rest of the budget allows it, else its smallest once. Duplicates are left out. Stages take turns, so
    that a search too short for all of them still looks at every stage.
    """
    floors = {
        stage.name: min(space.price(stage.name, s) for s in space.settings[stage.name])
        for stage in space.pipeline.stages
    }
    turns = [_stage_trials(space, stage, floors) for stage in space.pipeline.stages]
    proposals: dict[Allocation, Proposal] = {}
    for turn in zip_longest(*turns):
        for proposal in turn:
            if proposal is not None and proposal.allocation is not None:
                proposals.setdefault(proposal.allocation, proposal)
    return tuple(proposals.values())


def _stage_trials(space: SearchSpace, stage: StageSpec, floors: Mapping[str, float]) -> list[Proposal]:
    largest = largest_model(space, stage)
    share = min(_price(space, stage, largest, 1), space.limit - sum(floors.values()) + floors[stage.name])
    trials: list[Proposal] = []
    for model, strategy in product(sorted(stage.models, key=lambda m: -space.cost.parameters[m]), stage.strategies):
        setting = _most_samples(space, stage, model, strategy, share)
        allocation = None if setting is None else _complete(space, stage, setting, floors)
        if setting is not None and allocation is not None:
            reason = f"{stage.name}: {model} with as many samples as one of {largest} costs ({setting.samples})"
            trials.append(Proposal(allocation, "initial", reason))
    return trials


def largest_model(space: SearchSpace, stage: StageSpec) -> str:
    """The stage's candidate with the most active parameters."""
    sizes = space.sizes(stage.name)
    return max(stage.models, key=lambda model: sizes[model])


def _price(space: SearchSpace, stage: StageSpec, model: str, samples: int) -> float:
    """Of the model's setting with the fewest samples, at least `samples`, that the space has."""
    mine = [s for s in space.settings[stage.name] if s.model == model and s.samples >= samples]
    if mine:
        return space.price(stage.name, min(mine, key=lambda s: (s.samples, space.price(stage.name, s))))
    return space.cost.stage(stage, StageSetting(model, stage.strategies[0], samples))


def _most_samples(space: SearchSpace, stage: StageSpec, model: str, strategy: str, share: float) -> StageSetting | None:
    """The model's setting with the most samples that the share of cost buys; its cheapest where it buys none."""
    mine = [s for s in space.settings[stage.name] if s.model == model and s.samples <= MAX_SAMPLES]
    mine = [s for s in mine if s.strategy == strategy or s.samples == 1]
    if not mine:
        return None
    within = [s for s in mine if space.price(stage.name, s) <= share * (1 + 1e-9)]
    return max(within, key=lambda s: s.samples) if within else min(mine, key=lambda s: s.samples)


def _complete(
    space: SearchSpace, stage: StageSpec, setting: StageSetting, floors: Mapping[str, float]
) -> Allocation | None:
    """The allocation around one stage's setting; None where not even the cheapest rest fits."""
    left = space.limit - space.price(stage.name, setting)
    others = [s for s in space.pipeline.stages if s.name != stage.name]
    left -= sum(floors[s.name] for s in others)
    if left < -1e-9 * space.limit:
        return None
    chosen = {stage.name: setting}
    for other in others:
        best = _once(space, other, largest_model(space, other))
        extra = None if best is None else space.price(other.name, best) - floors[other.name]
        if best is not None and extra is not None and extra <= left * (1 + 1e-9):
            chosen[other.name] = best
            left -= extra
        else:
            chosen[other.name] = min(space.settings[other.name], key=lambda s: (space.price(other.name, s), s))
    return Allocation.of({s.name: chosen[s.name] for s in space.pipeline.stages})


def _once(space: SearchSpace, stage: StageSpec, model: str) -> StageSetting | None:
    mine = [s for s in space.settings[stage.name] if s.model == model]
    return min(mine, key=lambda s: s.samples, default=None)
