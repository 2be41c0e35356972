"""What trials take of each search ledger: planned from the spec, at worst, and from what was really asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from env.allocation import Allocation, StageSetting
from env.calls import Call
from env.costs import CostOptions, PlanCost
from env.costs.runtime import accelerators_needed
from env.errors import ApportionError
from env.spec import StageSpec, StudySpec
from env.spec.pipeline import JudgeModel
from env.spec.study import CostUnit
from env.strategies import STRATEGIES, StagePlan
from planner.archive import SearchLedger

LIMITS: Mapping[SearchLedger, Literal["draws", "tokens", "gpu_seconds", "dollars", "wall_seconds"]] = {
    "search": "draws",
    "search_tokens": "tokens",
    "search_gpu_seconds": "gpu_seconds",
    "search_dollars": "dollars",
    "search_wall_seconds": "wall_seconds",
}
"""The field of `SearchBudget` that limits a ledger."""

LEDGER_UNITS: Mapping[SearchLedger, str] = {
    "search": "draws",
    "search_tokens": "tokens",
    "search_flops": "FLOPs",
    "search_gpu_seconds": "GPU-seconds",
    "search_dollars": "USD",
    "search_wall_seconds": "s",
}

PROMPT_MARGIN = 2.0
"""How far mean prompts may exceed those the spec plans in what counts as a trial's worst case."""


class Outlay:
    """Prices the calls of one study's trials."""

    def __init__(self, spec: StudySpec) -> None:
        """Find out what can be priced.

        Raises:
            ApportionError: a model's size or price cannot be read.
        """
        self._spec = spec
        self._calls: dict[tuple[str, StageSetting, bool], tuple[Call, ...]] = {}
        options = CostOptions.of(spec.budget.plan)
        self.tokens = PlanCost(spec.pipeline, "tokens", options)
        self.flops = PlanCost(spec.pipeline, "flops", options)
        self.dollars = self._where_priced("dollars", options)
        self.ideal_gpu = self._where_priced("accelerator_seconds", options)
        """Idealized accelerator-seconds: a bound no server beats."""

        self.calibration = spec.budget.plan.calibration
        self.accelerators = {name: _accelerators(spec, self.tokens, name, options) for name in spec.pipeline.models}
        """How many accelerators answer for a model; 1 where nothing tells."""

    def _where_priced(self, unit: CostUnit, options: CostOptions) -> PlanCost | None:
        cost = PlanCost(self._spec.pipeline, unit, options)
        return None if cost.faults() else cost

    def limit(self, ledger: SearchLedger) -> float | None:
        """What the spec allows of a ledger; None where it sets no limit."""
        field = LIMITS.get(ledger)
        return None if field is None else getattr(self._spec.budget.search, field)

    @property
    def priced(self) -> dict[SearchLedger, PlanCost]:
        """The ledgers that calls can be priced in."""
        priced: dict[SearchLedger, PlanCost] = {"search_tokens": self.tokens, "search_flops": self.flops}
        return priced | ({} if self.dollars is None else {"search_dollars": self.dollars})

    def planned(self, allocation: Allocation) -> list[Call]:
        """The most one query asks for, at the tokens the spec plans."""
        return [call for stage, setting in allocation.settings for call in self.stage_calls(stage, setting)]

    def stage_calls(self, stage: str, setting: StageSetting) -> tuple[Call, ...]:
        """The same of one stage."""
        return self._stage_calls(stage, setting, False)

    def worst(self, allocation: Allocation) -> list[Call]:
        """The same with every draw at `max_tokens` and prompts at `PROMPT_MARGIN` times those planned.

        Strategies that search step by step may write more where steps that are given up are long; nothing that a batch
        sends passes what its allowance leaves all the same.
        """
        return [call for stage, setting in allocation.settings for call in self._stage_calls(stage, setting, True)]

    def _stage_calls(self, stage: str, setting: StageSetting, worst: bool) -> tuple[Call, ...]:
        key = (stage, setting, worst)
        if key not in self._calls:
            spec = self._spec.pipeline.stage(stage)
            plan = StagePlan(_at_worst(spec, setting.knob("max_tokens")) if worst else spec, setting)
            self._calls[key] = STRATEGIES[setting.strategy].calls(plan)
        return self._calls[key]

    def most_draws(self, allocation: Allocation) -> int:
        """The most draws one query can need."""
        return sum(
            STRATEGIES[setting.strategy].most_draws(StagePlan(self._spec.pipeline.stage(name), setting))
            for name, setting in allocation.settings
        )


def _at_worst(stage: StageSpec, knob: object) -> StageSpec:
    most = int(knob) if isinstance(knob, int | float) else stage.max_tokens
    tokens = stage.tokens
    grown = tokens.model_copy(
        update={
            "prompt": round(PROMPT_MARGIN * tokens.prompt),
            "output": max(most, tokens.output),
            "per": {name: PROMPT_MARGIN * each for name, each in tokens.per.items()},
        }
    )
    return stage.model_copy(update={"tokens": grown})


def _accelerators(spec: StudySpec, cost: PlanCost, name: str, options: CostOptions) -> int:
    model = spec.pipeline.models[name]
    # A judge's time is the one of the model it asks.
    asked = model.model if isinstance(model, JudgeModel) else name
    try:
        return accelerators_needed(cost.profiles[asked], options)
    except (ApportionError, KeyError):
        return 1
