"""The budget unit of AgentTTS (arXiv 2508.00890)."""

from __future__ import annotations

from env.costs._base import Lack, ModelProfile, StageTokens

REFERENCE_PARAMETERS = 3e9
REFERENCE_PROMPT = 128
REFERENCE_OUTPUT = 64

LEAST_OUTPUT = 1e-9
"""The formula divides by the output tokens; a verifier has none."""


def agenttts_units(parameters: float, prompt_tokens: float, output_tokens: float, samples: float) -> float:
    """Cost in AgentTTS units, floored at 0: ``(M / 3e9)(Nd / 64)(Np / Nd + S) - 128 / 64``.

    One unit is one more sample of a 3B model with 128 prompt tokens and 64 decoded tokens.
    """
    scale = (parameters / REFERENCE_PARAMETERS) * (output_tokens / REFERENCE_OUTPUT)
    return max(0.0, scale * (prompt_tokens / output_tokens + samples) - REFERENCE_PROMPT / REFERENCE_OUTPUT)


class AgentTTSCost:
    """Units of AgentTTS; the prompt is always shared, as the paper has it."""

    unit = "AgentTTS units"

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """See `CostModel.lacks`."""
        return []

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`; `agenttts_units` has the formula."""
        prompt, samples = tokens.prompt * tokens.prompts, tokens.samples * tokens.prompts
        return agenttts_units(model.active, prompt, max(tokens.output, LEAST_OUTPUT), samples)
