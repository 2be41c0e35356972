"""The predicted cost of an allocation, per query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from env.allocation import Allocation, StageSetting
from env.costs._base import CostModel, StageTokens, cost_model
from env.costs.architecture import llama_parameters
from env.errors import CheckpointError
from env.spec.checkpoints import resolve_checkpoint
from env.spec.pipeline import FleetModel, PipelineSpec, StageSpec, TorchModel
from env.spec.study import CostUnit


class PlanCost:
    """Cost of a pipeline's allocations in one unit.

    A stage costs its generations; best-of-n adds one verifier pass over prompt and candidate for every sample.
    """

    def __init__(self, pipeline: PipelineSpec, unit: CostUnit) -> None:
        self._pipeline = pipeline
        self._model: CostModel = cost_model(unit)
        self._parameters = model_parameters(pipeline)

    @property
    def unit(self) -> str:
        """The unit, as people write it."""
        return self._model.unit

    @property
    def parameters(self) -> Mapping[str, float]:
        """Active parameters by model name."""
        return self._parameters

    def stage(self, stage: StageSpec, setting: StageSetting) -> float:
        """Predicted cost of one stage per query, from the stage's planned tokens."""
        planned = StageTokens(stage.tokens.prompt, stage.tokens.output, setting.samples)
        return self._with_verifier(stage, setting, planned)

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
        return self._with_verifier(stage, setting, StageTokens(prompt_tokens, mean, len(output_tokens)))

    def _with_verifier(self, stage: StageSpec, setting: StageSetting, tokens: StageTokens) -> float:
        cost = self._model.stage_cost(self._parameters[setting.model], tokens)
        if setting.strategy == "best_of_n" and stage.verifier is not None:
            judged = StageTokens(tokens.samples * (tokens.prompt + tokens.output), 1e-9, 0)
            cost += self._model.stage_cost(self._parameters[stage.verifier], judged)
        return cost


def model_parameters(pipeline: PipelineSpec) -> dict[str, float]:
    """Active parameters of every model: stated, or read from its checkpoint.

    Raises:
        CheckpointError: a checkpoint has no readable config.json and none are stated.
    """
    sizes: dict[str, float] = {}
    for name, model in pipeline.models.items():
        if model.parameters is not None:
            sizes[name] = model.parameters
        elif isinstance(model, TorchModel):
            sizes[name] = float(llama_parameters(resolve_checkpoint(model.checkpoint)))
        elif isinstance(model, FleetModel):
            from env.fleet.load import configured_fleet

            checkpoint = configured_fleet().checkpoint(model.model)
            if checkpoint is None:
                raise CheckpointError(f"{name}: the checkpoint is not on this machine; state `parameters`")
            sizes[name] = float(llama_parameters(checkpoint))
    return sizes
