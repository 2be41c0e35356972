"""Which settings a stage opens: its models, strategies, samples and knobs, each combination once."""

from __future__ import annotations

from itertools import product

from env.allocation import KnobValue, StageSetting
from env.spec.stage import StageSpec
from env.strategies import STRATEGIES


def stage_settings(stage: StageSpec) -> tuple[StageSetting, ...]:
    """Every setting of a stage in normal form: one sample, the same under every strategy, stands under the first."""
    return tuple(
        StageSetting(model, strategy, samples, knobs)
        for strategy, samples in product(stage.strategies, stage.samples.values())
        if samples > 1 or strategy == stage.strategies[0]
        for knobs in _knob_choices(stage, strategy, samples)
        for model in stage.models
    )


def knob_names(stage: StageSpec, strategy: str, samples: int) -> tuple[str, ...]:
    """Knobs of a stage that mean something: its own, and those of the strategy where it has more than one sample."""
    return tuple(sorted(n for n in stage.knobs if "." not in n or (samples > 1 and n.startswith(f"{strategy}."))))


def normal_setting(stage: StageSpec, setting: StageSetting) -> StageSetting:
    """The setting without knobs that mean nothing, and under the first strategy where it has one sample."""
    strategy = setting.strategy if setting.samples > 1 or setting.strategy not in stage.strategies else None
    names = knob_names(stage, setting.strategy, setting.samples)
    knobs = tuple((name, value) for name, value in setting.knobs if name in names)
    return StageSetting(setting.model, strategy or stage.strategies[0], setting.samples, knobs)


def setting_faults(stage: StageSpec, setting: StageSetting) -> list[str]:
    """Why a stage does not open a setting: unknown names, values out of range; empty where it does."""
    faults: list[str] = []
    if setting.model not in stage.models:
        faults.append(f"no model {setting.model!r}; choose from {', '.join(stage.models)}")
    if setting.strategy not in stage.strategies:
        faults.append(f"no strategy {setting.strategy!r}; choose from {', '.join(stage.strategies)}")
    if setting.samples not in stage.samples.values():
        allowed = stage.samples.choices or (f"{stage.samples.min}..{stage.samples.max}",)
        faults.append(f"samples {setting.samples} not in {', '.join(map(str, allowed))}")
    unknown = [name for name, _ in setting.knobs if name not in stage.knobs]
    faults += [f"no knob {name!r}; there are {', '.join(stage.knobs) or 'none'}" for name in unknown]
    for name in knob_names(stage, setting.strategy, setting.samples):
        choices = stage.knobs[name]
        value = setting.knob(name)
        if value is None:
            faults.append(f"knob {name} is missing; choose from {', '.join(map(str, choices))}")
        elif value not in choices:
            faults.append(f"knob {name} {value!r} not in {', '.join(map(str, choices))}")
    return faults


def knob_fault(stage: StageSpec, name: str, value: KnobValue) -> str | None:
    """Why a choice of a knob cannot be used, or None; knobs that are variables of the prompt may be anything."""
    if "." in name:
        strategy, own = name.split(".", 1)
        if strategy not in stage.strategies:
            return f"the stage has no strategy {strategy!r}"
        known = STRATEGIES[strategy].knobs
        if own not in known:
            return f"{strategy} has no knob {own!r}; it has {', '.join(known) or 'none'}"
        return known[own].fault(value)
    if name == "temperature":
        return None if not isinstance(value, str) and 0 <= value <= 10 else "must be a number from 0 to 10"
    if name == "top_p":
        return None if not isinstance(value, str) and 0 < value <= 1 else "must be a number above 0, at most 1"
    if name == "max_tokens":
        return None if isinstance(value, int) and value >= 1 else "must be a whole number above 0"
    return None


def _knob_choices(stage: StageSpec, strategy: str, samples: int) -> list[tuple[tuple[str, KnobValue], ...]]:
    names = knob_names(stage, strategy, samples)
    return [tuple(zip(names, values, strict=True)) for values in product(*(stage.knobs[name] for name in names))]
