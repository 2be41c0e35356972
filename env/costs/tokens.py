"""Tokens: what a query reads and writes, whatever the model."""

from __future__ import annotations

from env.costs._base import CostOptions, Lack, ModelProfile, StageTokens


class TokenCost:
    """Prompt tokens (once for all samples, or once for each) plus generated tokens."""

    unit = "tokens"

    def __init__(self, options: CostOptions) -> None:
        self._shared = options.prompt_shared

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """See `CostModel.lacks`."""
        return []

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`: ``Np + S Nd``."""
        return tokens.prompt * tokens.prefills(self._shared) + tokens.samples * tokens.prompts * tokens.output
