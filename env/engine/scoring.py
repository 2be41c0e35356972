"""Scores candidate replies with a sequence-classification checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from env.engine.model import LlamaModel
from env.engine.prefilling import prefill_groups, run_prefill
from env.errors import BackendError


def score_tokens(model: LlamaModel, prompts: Sequence[Sequence[int]], budget: int) -> list[float]:
    """Sigmoid of the classification logit at each sequence's last token, in [0, 1].

    Args:
        model: a verifier.
        prompts: token sequences, each with at least one token.
        budget: padded tokens to run at once.

    Raises:
        BackendError: a sequence is empty or longer than the model's context.
    """
    longest = model.config.max_positions
    for prompt in prompts:
        if not 0 < len(prompt) <= longest:
            raise BackendError(f"cannot score {len(prompt)} tokens: a sequence has 1 to {longest} tokens")
    scores = [0.0] * len(prompts)
    with torch.inference_mode():
        for group in prefill_groups([len(prompt) for prompt in prompts], budget):
            prefill = run_prefill(model, [prompts[number] for number in group])
            values = model.logits(prefill.last_hidden).squeeze(1).double().sigmoid().tolist()
            for number, value in zip(group, values, strict=True):
                scores[number] = value
    return scores
