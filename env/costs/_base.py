"""Cost models: tokens of a stage -> cost in a stated unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from env.costs.flops import agenttts_units, flops
from env.spec.study import CostUnit


@dataclass(frozen=True)
class StageTokens:
    """What one stage of one query uses."""

    prompt: float
    output: float
    """Tokens of one sample, mean over the samples."""

    samples: int


class CostModel(Protocol):
    """Cost of one stage of one query. Pure; non-decreasing in the number of samples."""

    @property
    def unit(self) -> str:
        """The unit, as people write it."""
        ...

    def stage_cost(self, parameters: float, tokens: StageTokens) -> float:
        """Cost of a stage whose model has that many active parameters."""
        ...


class FlopsCost:
    """Forward FLOPs."""

    unit = "FLOPs"

    def stage_cost(self, parameters: float, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`; `flops` has the formula."""
        return flops(parameters, tokens.prompt, tokens.output, tokens.samples)


class AgentTTSCost:
    """Units of AgentTTS."""

    unit = "AgentTTS units"

    def stage_cost(self, parameters: float, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`; `agenttts_units` has the formula."""
        return agenttts_units(parameters, tokens.prompt, max(tokens.output, 1e-9), tokens.samples)


class TokenCost:
    """Prompt tokens (once) plus generated tokens, whatever the model."""

    unit = "tokens"

    def stage_cost(self, parameters: float, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`."""
        return tokens.prompt + tokens.samples * tokens.output


def cost_model(unit: CostUnit) -> CostModel:
    """The cost model of a budget's unit."""
    models: dict[CostUnit, CostModel] = {"flops": FlopsCost(), "agenttts": AgentTTSCost(), "tokens": TokenCost()}
    return models[unit]
