"""The predicted cost of an allocation, per query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from env.allocation import Allocation, StageSetting
from env.calls import Call
from env.costs._base import CostModel, CostOptions, ModelProfile, StageTokens
from env.costs.profiles import model_profiles
from env.costs.units import cost_model
from env.spec.faults import Fault
from env.spec.pipeline import JudgeModel, PipelineSpec
from env.spec.stage import StageSpec
from env.spec.study import CostUnit
from env.strategies import STRATEGIES, StagePlan


class PlanCost:
    """Cost of a pipeline's allocations in one unit: of the calls that each stage's strategy makes."""

    def __init__(self, pipeline: PipelineSpec, unit: CostUnit, options: CostOptions | None = None) -> None:
        """Gather the models' profiles.

        Args:
            pipeline: whose allocations are priced.
            unit: of the cost.
            options: how the models are taken to be served.

        Raises:
            CheckpointError: a checkpoint's size is not stated and cannot be read.
            CostDataError: no catalogue entry of a name, or the prices cannot be read.
        """
        self._pipeline = pipeline
        self._model: CostModel = cost_model(unit, options)
        self._profiles = model_profiles(pipeline, options)
        self._parameters = {name: profile.active for name, profile in self._profiles.items()}

    @property
    def unit(self) -> str:
        """The unit, as people write it."""
        return self._model.unit

    @property
    def parameters(self) -> Mapping[str, float]:
        """Active parameters by model name."""
        return self._parameters

    @property
    def profiles(self) -> Mapping[str, ModelProfile]:
        """What is known of each model, by name."""
        return self._profiles

    def faults(self) -> list[Fault]:
        """What the unit needs and the spec does not say, each with the field to add it to; each plan field once."""
        used = dict.fromkeys(
            name
            for stage in self._pipeline.stages
            for name in (*stage.models, stage.verifier, stage.critic)
            if name is not None and name in self._profiles
        )
        found: dict[Fault, None] = {}
        for name in used:
            for lack in self._model.lacks(self._profiles[name]):
                path = f"budget.plan.{lack.field}" if lack.subject == "plan" else f"pipeline.models.{name}.{lack.field}"
                found[Fault(path, f"{self.unit} needs it: {lack.message}")] = None
        return list(found)

    def stage(self, stage: StageSpec, setting: StageSetting) -> float:
        """Predicted cost of one stage per query: the most its strategy can ask for, at the planned tokens."""
        return self.of(STRATEGIES[setting.strategy].calls(StagePlan(stage, setting)))

    def allocation(self, allocation: Allocation) -> float:
        """Predicted cost of a whole allocation per query."""
        return sum(self.stage(self._pipeline.stage(name), setting) for name, setting in allocation.settings)

    def of(self, calls: Iterable[Call]) -> float:
        """Cost of calls, planned or made.

        A judge that is only planned to read is priced with the verdicts it writes.
        """
        return sum(
            self._model.stage_cost(
                self._profiles[call.model], StageTokens(call.prompt, call.output, call.samples, call.prompts)
            )
            for call in map(self._with_verdicts, calls)
        )

    def _with_verdicts(self, call: Call) -> Call:
        model = self._pipeline.models[call.model]
        if call.samples or not isinstance(model, JudgeModel):
            return call
        return replace(call, output=model.output_tokens, samples=model.samples)
