"""A small key-value-cache sampler for Llama checkpoints, enough to train the verifier and to measure the curves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from env.embedded.vocabulary import EOS, TOKEN_IDS, WORDS, encode, prompt_text

_MOST_ROWS = 768
_END = TOKEN_IDS[EOS]


@dataclass(frozen=True)
class Sampled:
    """One generation."""

    text: str
    """Words before the end token."""

    tokens: int
    """Tokens generated, the end token included."""


class Sampler:
    """Draws from one model, many prompts of one length at a time."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        config = model.config
        self.parameters: int = sum(parameter.numel() for parameter in model.parameters())
        self._heads, self._size = config.num_attention_heads, config.head_dim
        self._layers = model.model.layers
        self._embedding = model.model.embed_tokens.weight
        self._norm = model.model.norm
        self._generator = torch.Generator().manual_seed(seed)
        half = torch.arange(0, self._size, 2) / self._size
        angles = torch.arange(config.max_position_embeddings)[:, None] / 10000.0**half
        self._cos, self._sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def sample(
        self, stage: str, users: Sequence[str], count: int, temperature: float = 1.0, most_tokens: int = 80
    ) -> list[list[Sampled]]:
        """Draw ``count`` generations for each user message; temperature 0 is greedy."""
        prompts = [encode(prompt_text(stage, user)) for user in users]
        by_length = defaultdict[int, list[int]](list)
        for index, prompt in enumerate(prompts):
            by_length[len(prompt)].append(index)
        drawn: list[list[Sampled]] = [[] for _ in prompts]
        at_once = max(1, _MOST_ROWS // count)
        for indices in by_length.values():
            for start in range(0, len(indices), at_once):
                chosen = indices[start : start + at_once]
                with torch.inference_mode():
                    rows = self._generate(torch.tensor([prompts[i] for i in chosen]), count, temperature, most_tokens)
                for row, tokens in enumerate(rows):
                    drawn[chosen[row // count]].append(_sampled(tokens))
        return drawn

    def _generate(self, prompts: torch.Tensor, count: int, temperature: float, most_tokens: int) -> list[list[int]]:
        length = prompts.shape[1]
        caches = [prompts.new_zeros(0)] * (2 * len(self._layers))
        logits = self._forward(prompts, 0, caches)
        caches[:] = [functional.pad(cache.repeat_interleave(count, 0), (0, 0, 0, most_tokens)) for cache in caches]
        logits = logits.repeat_interleave(count, 0)
        alive = torch.arange(logits.shape[0])
        rows: list[list[int]] = [[] for _ in range(logits.shape[0])]
        for step in range(most_tokens):
            if temperature > 0:
                chances = functional.softmax(logits / temperature, -1)
                token = torch.multinomial(chances, 1, generator=self._generator)[:, 0]
            else:
                token = logits.argmax(-1)
            for row, value in zip(alive.tolist(), token.tolist(), strict=True):
                rows[row].append(value)
            going = token != _END
            if not going.any() or step + 1 == most_tokens:
                break
            if going.float().mean() < 0.8:
                alive, token = alive[going], token[going]
                caches[:] = [cache[going] for cache in caches]
            logits = self._forward(token[:, None], length + step, caches)
        return rows

    def _forward(self, tokens: torch.Tensor, start: int, caches: list[torch.Tensor]) -> torch.Tensor:
        """Logits after the last token; the first call fills the caches, later ones write one position."""
        count, length = tokens.shape
        cos, sin = self._cos[start : start + length], self._sin[start : start + length]
        hidden = self._embedding[tokens]
        for number, layer in enumerate(self._layers):
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            query, key, value = (
                projection(normed).view(count, length, self._heads, self._size).transpose(1, 2)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
            if start:
                keys, values = caches[2 * number], caches[2 * number + 1]
                keys[:, :, start : start + length], values[:, :, start : start + length] = key, value
                key, value = keys[:, :, : start + length], values[:, :, : start + length]
            else:
                caches[2 * number], caches[2 * number + 1] = key, value
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=not start)
            hidden = hidden + attention.o_proj(mixed.transpose(1, 2).reshape(count, length, -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return functional.linear(self._norm(hidden[:, -1]), self._embedding)


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = states.chunk(2, -1)
    return states * cos + torch.cat((-second, first), -1) * sin


def _sampled(tokens: list[int]) -> Sampled:
    end = tokens.index(_END) if _END in tokens else len(tokens)
    return Sampled(" ".join(WORDS[token] for token in tokens[:end]), min(end + 1, len(tokens)))
