"""The predicted cost of an allocation, per query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from env.allocation import Allocation, StageSetting
from env.costs._base import CostModel, CostOptions, ModelProfile, StageTokens
from env.costs.profiles import model_profiles
from env.costs.units import cost_model
from env.spec.faults import Fault
from env.spec.pipeline import PipelineSpec, StageSpec
from env.spec.study import CostUnit


class PlanCost:
    """Cost of a pipeline's allocations in one unit.

    A stage costs its generations; best-of-n adds one verifier pass over prompt and candidate for every sample.
    """

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
            for name in (*stage.models, stage.verifier)
            if name is not None and name in self._profiles
        )
        found: dict[Fault, None] = {}
        for name in used:
            for lack in self._model.lacks(self._profiles[name]):
                path = f"budget.plan.{lack.field}" if lack.subject == "plan" else f"pipeline.models.{name}.{lack.field}"
                found[Fault(path, f"{self.unit} needs it: {lack.message}")] = None
        return list(found)

    def stage(self, stage: StageSpec, setting: StageSetting) -> float:
        """Predicted cost of one stage per query, from the stage's planned tokens."""
        return self.used(stage, setting, StageTokens(stage.tokens.prompt, stage.tokens.output, setting.samples))

    def allocation(self, allocation: Allocation) -> float:
        """Predicted cost of a whole allocation per query."""
        return sum(self.stage(self._pipeline.stage(name), setting) for name, setting in allocation.settings)

    def measured(
        self, stage: StageSpec, setting: StageSetting, prompt_tokens: int, output_tokens: Sequence[int]
    ) -> float:
        """Cost of what one query of a stage really used.

        Args:
            stage: the stage.
            setting: what it ran with.
            prompt_tokens: tokens of its prompt.
            output_tokens: generated tokens of each sample.
        """
        if not output_tokens:
            return 0.0
        mean = sum(output_tokens) / len(output_tokens)
        return self.used(stage, setting, StageTokens(prompt_tokens, mean, len(output_tokens)))

    def used(self, stage: StageSpec, setting: StageSetting, tokens: StageTokens) -> float:
        """Cost of a stage per query at given tokens."""
        return self._with_verifier(stage, setting, tokens)

    def _with_verifier(self, stage: StageSpec, setting: StageSetting, tokens: StageTokens) -> float:
        cost = self._model.stage_cost(self._profiles[setting.model], tokens)
        if setting.strategy == "best_of_n" and stage.verifier is not None:
            judged = StageTokens(tokens.prompt + tokens.output, 0.0, 0, prompts=tokens.samples)
            cost += self._model.stage_cost(self._profiles[stage.verifier], judged)
        return cost


def model_parameters(pipeline: PipelineSpec) -> dict[str, float]:
    """Active parameters of every model: stated, or counted from its checkpoint or architecture.

    Raises:
        CheckpointError: a checkpoint has no readable config.json and none are stated.
        CostDataError: no catalogue entry of a name.
    """
    return {name: profile.active for name, profile in model_profiles(pipeline).items()}
