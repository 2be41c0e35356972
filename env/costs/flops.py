"""Forward FLOPs and the budget unit of AgentTTS (arXiv 2508.00890)."""

from __future__ import annotations

REFERENCE_PARAMETERS = 3e9
REFERENCE_PROMPT = 128
REFERENCE_OUTPUT = 64


def flops(parameters: float, prompt_tokens: float, output_tokens: float, samples: float) -> float:
    """Forward FLOPs of one query: ``2 M (Np + S Nd)``; the prompt is prefilled once and shared by the samples.

    Args:
        parameters: active parameters M.
        prompt_tokens: Np.
        output_tokens: Nd, tokens of one sample.
        samples: S.
    """
    return 2.0 * parameters * (prompt_tokens + samples * output_tokens)


def agenttts_units(parameters: float, prompt_tokens: float, output_tokens: float, samples: float) -> float:
    """Cost in AgentTTS units, floored at 0: ``(M / 3e9)(Nd / 64)(Np / Nd + S) - 128 / 64``.

    One unit is one more sample of a 3B model with 128 prompt tokens and 64 decoded tokens.
    """
    scale = (parameters / REFERENCE_PARAMETERS) * (output_tokens / REFERENCE_OUTPUT)
    return max(0.0, scale * (prompt_tokens / output_tokens + samples) - REFERENCE_PROMPT / REFERENCE_OUTPUT)
