"""Picks the next token of every row by inverse CDF, so that one uniform number decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from env.backends._base import Sampling


@dataclass(frozen=True)
class RowSampling:
    """Sampling parameters of B rows as tensors, with what can be skipped for all of them."""

    temperature: Tensor
    """[B, 1]; greedy rows hold 1."""

    top_p: Tensor
    """[B, 1]."""

    greedy: Tensor
    """[B] bool."""

    plain: bool
    """Every row samples at temperature 1 from the whole vocabulary."""

    any_greedy: bool
    all_greedy: bool
    any_top_p: bool

    @classmethod
    def of(cls, rows: Sequence[Sampling], device: torch.device) -> RowSampling:
        """Collect the parameters of the given rows."""
        greedy = [row.temperature == 0 for row in rows]
        temperature = [row.temperature or 1.0 for row in rows]
        top_p = [row.top_p for row in rows]
        return cls(
            temperature=torch.tensor(temperature, dtype=torch.float32, device=device).view(-1, 1),
            top_p=torch.tensor(top_p, dtype=torch.float64, device=device).view(-1, 1),
            greedy=torch.tensor(greedy, dtype=torch.bool, device=device),
            plain=not any(greedy) and all(t == 1 for t in temperature) and all(p >= 1 for p in top_p),
            any_greedy=any(greedy),
            all_greedy=all(greedy),
            any_top_p=any(p < 1 for p in top_p),
        )


def pick(logits: Tensor, uniform: Tensor, rows: RowSampling) -> tuple[Tensor, Tensor]:
    """Choose one token a row.

    Args:
        logits: [B, V] float32.
        uniform: [B] float64 in [0, 1).
        rows: the rows' parameters.

    Returns:
        Tokens [B] and their natural log-probabilities at temperature 1 [B]; NaN where the logits are not finite.
    """
    natural = logits.softmax(-1)
    if rows.plain:
        tokens = invert_cdf(natural, uniform)
        return tokens, natural.gather(1, tokens.unsqueeze(1)).squeeze(1).log()
    if rows.all_greedy:
        tokens = logits.argmax(-1)
    else:
        weights = (logits / rows.temperature).softmax(-1)
        if rows.any_top_p:
            weights = keep_top_p(weights, rows.top_p)
        tokens = invert_cdf(weights, uniform)
        if rows.any_greedy:
            tokens = torch.where(rows.greedy, logits.argmax(-1), tokens)
    return tokens, logits.log_softmax(-1).gather(1, tokens.unsqueeze(1)).squeeze(1)


def invert_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first token whose cumulated weight exceeds ``uniform`` of the total; weights [B, V] need not be normalised.

    Sums are float64, so that rounding almost never moves a boundary across a uniform; tokens of weight 0 are never
    chosen.
    """
    cumulated = weights.cumsum(-1, dtype=torch.float64)
    threshold = uniform.unsqueeze(1) * cumulated[:, -1:]
    tokens = torch.searchsorted(cumulated, threshold, right=True)
    return tokens.squeeze(1).clamp_(max=weights.shape[1] - 1)


def keep_top_p(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Zero all but the smallest set of most likely tokens that reaches ``top_p`` ([B, 1]); the best always stays.

    Kept weights stay in vocabulary order: near ties may then swap ranks between batches without moving the draw.
    """
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1, dtype=torch.float64) - ordered
    kept = before < top_p
    kept[:, 0] = True
    return probabilities * torch.zeros_like(kept).scatter_(1, order, kept)
