"""Forward FLOPs: the cheapest measure, from parameters and tokens alone."""

from __future__ import annotations

from env.costs._base import CostOptions, Lack, ModelProfile, StageTokens


def flops(parameters: float, prompt_tokens: float, output_tokens: float, samples: float) -> float:
    """Forward FLOPs of one query: ``2 M (Np + S Nd)``; the prompt is processed once and shared by the samples.

    A multiplication and an addition for each parameter and token; attention over the context is left out.

    Args:
        parameters: active parameters M: all of a dense model, those a token goes through of a mixture.
        prompt_tokens: Np.
        output_tokens: Nd, tokens of one sample.
        samples: S.
    """
    return 2.0 * parameters * (prompt_tokens + samples * output_tokens)


class FlopsCost:
    """Forward FLOPs."""

    unit = "FLOPs"

    def __init__(self, options: CostOptions) -> None:
        self._shared = options.prompt_shared

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """See `CostModel.lacks`."""
        return []

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`; `flops` has the formula, with Np S in place of Np where nothing is shared."""
        prompt = tokens.prompt * tokens.prefills(self._shared)
        return flops(model.active, prompt, tokens.output, tokens.samples * tokens.prompts)
