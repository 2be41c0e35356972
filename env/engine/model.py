"""The Llama forward pass, written for many short rows at once: prefill of prompts and single decode steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from env.engine.config import LlamaConfig
from env.engine.weights import LayerWeights, LlamaWeights


@dataclass(frozen=True)
class Prefill:
    """What a prefill leaves behind for P prompts padded on the right to W tokens."""

    last_hidden: Tensor
    """[P, hidden]: the final norm's output at each prompt's last token."""

    keys_values: tuple[Tensor, ...]
    """For each layer [P, W, 2 * kv_heads, head_dim]: rotated keys, then values."""


@dataclass(frozen=True)
class Block:
    """A range of rows of the decode batch."""

    rows: slice
    low: int
    """No row of the range sees a cache column before this one."""


class LlamaModel:
    """Weights plus the rotary table; stateless otherwise."""

    def __init__(self, config: LlamaConfig, weights: LlamaWeights) -> None:
        self.config = config
        self._weights = weights
        self._query_width = config.heads * config.head_dim
        self._rotated = config.heads + config.kv_heads
        self._all_heads = config.heads + 2 * config.kv_heads
        self._groups = config.heads // config.kv_heads
        self._turns = self._rotary_table(256)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._weights.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, activations and cache."""
        return self._weights.embedding.dtype

    def reserve_positions(self, positions: int) -> None:
        """Make the rotary table reach that many positions."""
        if positions > self._turns.shape[0]:
            self._turns = self._rotary_table(1 << (positions - 1).bit_length())

    def prefill(self, tokens: Tensor, lengths: Tensor) -> Prefill:
        """Run whole prompts.

        Args:
            tokens: [P, W] token ids, padded on the right with anything.
            lengths: [P] true lengths, at least 1.
        """
        prompts, width = tokens.shape
        self.reserve_positions(width)
        turns = self._turns[:width].view(1, width, 1, -1)
        hidden = self._weights.embedding[tokens.reshape(-1)]
        kept = []
        for layer in self._weights.layers:
            heads = (self._normed(hidden) @ layer.qkv).view(prompts, width, self._all_heads, self.config.head_dim)
            self._rotate(heads, turns)
            keys_values = heads[:, :, self.config.heads :]
            kept.append(keys_values)
            mixed = functional.scaled_dot_product_attention(
                heads[:, :, : self.config.heads].transpose(1, 2),
                keys_values[:, :, : self.config.kv_heads].transpose(1, 2),
                keys_values[:, :, self.config.kv_heads :].transpose(1, 2),
                is_causal=True,
                scale=1.0,
                enable_gqa=self._groups > 1,
            )
            hidden.addmm_(mixed.transpose(1, 2).reshape(prompts * width, self._query_width), layer.out)
            self._feed_forward(hidden, layer)
        last = torch.arange(prompts, device=self.device) * width + lengths - 1
        return Prefill(self._normed(hidden[last]) * self._weights.norm, tuple(kept))

    def decode(
        self, tokens: Tensor, positions: Tensor, cache: list[Tensor], newest: int, mask: Tensor, blocks: Sequence[Block]
    ) -> Tensor:
        """One step of every row: store the new keys and values in column ``newest`` and attend to what is visible.

        Args:
            tokens: [B] the rows' newest tokens.
            positions: [B] their rotary positions.
            cache: for each layer [B, 2 * kv_heads, capacity, head_dim], written in place.
            newest: the cache column of this step.
            mask: [B, 1, 1, capacity] additive, -inf where a column is not the row's.
            blocks: consecutive ranges that cover all rows, each with the first column that any of its rows sees.

        Returns:
            [B, vocab] logits, float32.
        """
        rows = tokens.shape[0]
        config = self.config
        hidden = self._weights.embedding[tokens]
        turns = self._turns[positions].view(rows, 1, -1)
        for layer, store in zip(self._weights.layers, cache, strict=True):
            heads = (self._normed(hidden) @ layer.qkv).view(rows, self._all_heads, config.head_dim)
            self._rotate(heads, turns)
            store[:, :, newest].copy_(heads[:, config.heads :])
            queries = heads[:, : config.heads].view(rows, config.kv_heads, self._groups, config.head_dim)
            parts = [self._attend(queries, store, newest, mask, block) for block in blocks]
            mixed = parts[0] if len(parts) == 1 else torch.cat(parts)
            hidden.addmm_(mixed.reshape(rows, self._query_width), layer.out)
            self._feed_forward(hidden, layer)
        return self.logits(self._normed(hidden) * self._weights.norm)

    def logits(self, last_hidden: Tensor) -> Tensor:
        """[N, vocab] (or [N, 1] of a verifier) from normed hidden states [N, hidden], float32."""
        return (last_hidden @ self._weights.head).float()

    def _attend(self, queries: Tensor, store: Tensor, newest: int, mask: Tensor, block: Block) -> Tensor:
        """Attention of one block's rows over the columns they see."""
        rows, columns = block.rows, slice(block.low, newest + 1)
        return functional.scaled_dot_product_attention(
            queries[rows],
            store[rows, : self.config.kv_heads, columns],
            store[rows, self.config.kv_heads :, columns],
            attn_mask=mask[rows, :, :, columns],
            scale=1.0,
        )

    def _feed_forward(self, hidden: Tensor, layer: LayerWeights) -> None:
        gate, up = (self._normed(hidden) @ layer.gate_up).chunk(2, dim=1)
        hidden.addmm_(functional.silu(gate).mul_(up), layer.down)

    def _normed(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, (self.config.hidden_size,), None, self.config.norm_eps)

    def _rotate(self, heads: Tensor, turns: Tensor) -> None:
        """Turn queries and keys in place; ``heads`` is [..., all heads, head_dim] with adjacent rotary pairs."""
        part = heads[..., : self._rotated, :]
        if part.dtype == torch.float32:
            torch.view_as_complex(part.unflatten(-1, (-1, 2))).mul_(turns)
            return
        turned = torch.view_as_complex(part.float().unflatten(-1, (-1, 2))) * turns
        part.copy_(torch.view_as_real(turned).flatten(-2))

    def _rotary_table(self, positions: int) -> Tensor:
        """[positions, head_dim / 2] complex turns."""
        frequencies = torch.tensor(self.config.inverse_frequencies(), dtype=torch.float32)
        angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
        return torch.polar(torch.ones_like(angles), angles).to(self.device)
