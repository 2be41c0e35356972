"""Groups prompts of similar length, so that little of a prefill is padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from env.engine.model import LlamaModel, Prefill


def prefill_groups(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Split prompts (by position) into groups, longest first, of at most ``budget`` padded tokens each.

    A prompt longer than the budget gets a group of its own. Decided by the lengths and their order alone.
    """
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    groups: list[list[int]] = []
    for number in order:
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def run_prefill(model: LlamaModel, prompts: Sequence[Sequence[int]]) -> Prefill:
    """Pad prompts on the right and run them."""
    width = max(map(len, prompts))
    padded = torch.tensor([[*prompt, *([0] * (width - len(prompt)))] for prompt in prompts], device=model.device)
    return model.prefill(padded, torch.tensor([len(prompt) for prompt in prompts], device=model.device))
