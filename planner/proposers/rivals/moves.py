"""Changes of an allocation: one thing at one stage, and the offspring of two allocations."""

from __future__ import annotations

import random

from env.allocation import Allocation, KnobValue, StageSetting
from env.spec import StageSpec
from env.strategies.settings import knob_names, normal_setting
from planner.space import SearchSpace


def changed(
    stage: StageSpec,
    setting: StageSetting,
    model: str | None = None,
    strategy: str | None = None,
    samples: int | None = None,
    knob: tuple[str, KnobValue] | None = None,
) -> StageSetting:
    """A setting with some parts changed, in normal form; a knob that comes to mean something gets its first choice."""
    strategy = setting.strategy if strategy is None else strategy
    samples = setting.samples if samples is None else samples
    values = dict(setting.knobs) | (dict([knob]) if knob else {})
    knobs = tuple((name, values.get(name, stage.knobs[name][0])) for name in knob_names(stage, strategy, samples))
    return normal_setting(stage, StageSetting(model or setting.model, strategy, samples, knobs))


def neighbours(stage: StageSpec, setting: StageSetting, step: int = 1) -> dict[str, list[StageSetting]]:
    """Settings that differ in one part: ``model``, ``strategy``, ``samples`` (up to `step` places away) and each knob.

    A strategy means something only above one sample, so a setting with one sample changes strategy by taking the
    fewest samples above one.
    """
    allowed = stage.samples.values()
    place = allowed.index(setting.samples)
    several = [k for k in allowed if k > 1]
    samples = setting.samples if setting.samples > 1 or not several else several[0]
    found = {
        "model": [changed(stage, setting, model=m) for m in stage.models if m != setting.model],
        "samples": [
            changed(stage, setting, samples=k)
            for k in allowed[max(0, place - step) : place + step + 1]
            if k != setting.samples
        ],
        "strategy": [
            changed(stage, setting, strategy=g, samples=samples) for g in stage.strategies if g != setting.strategy
        ]
        if samples > 1
        else [],
    }
    for name, value in setting.knobs:
        found[name] = [changed(stage, setting, knob=(name, v)) for v in stage.knobs[name] if v != value]
    return {part: settings for part, settings in found.items() if settings}


def mutate(space: SearchSpace, allocation: Allocation, generator: random.Random) -> Allocation:
    """The allocation with one part of one stage's setting changed, all parts and their other values equally likely."""
    parts = [
        (stage.name, settings)
        for stage in space.pipeline.stages
        for settings in neighbours(stage, allocation[stage.name], step=1000).values()
    ]
    if not parts:
        return allocation
    name, settings = generator.choice(parts)
    return allocation.replace(name, generator.choice(settings))


def crossover(mother: Allocation, father: Allocation, generator: random.Random) -> Allocation:
    """Each stage's setting from either parent, with equal probability (uniform crossover)."""
    return Allocation(
        tuple(generator.choice((one, other)) for one, other in zip(mother.settings, father.settings, strict=True))
    )
