"""Arithmetic and traffic counted the slow way: token by token, layer by layer, from the definitions."""

from __future__ import annotations

from dataclasses import dataclass

from env.costs import ModelProfile


@dataclass
class Count:
    flops: float = 0.0
    bytes: float = 0.0


class Stepwise:
    """Walks through a stage's tokens with the plain numbers of an architecture."""

    def __init__(self, model: ModelProfile, batch: int | None) -> None:
        assert model.architecture is not None
        self.a, self.q, self.active, self.batch = model.architecture, model.quantisation, model.active, batch
        a = self.a
        latent = a.kv_rank > 0
        self.kv = (a.kv_rank + a.rope_dim if latent else a.kv_heads * a.head_dim * 2) * self.q.kv_bits / 8
        per_query_head_prefill = 2 * a.head_dim + 2 * (a.value_dim if latent else a.head_dim)
        per_query_head_decode = 2 * (a.kv_rank + a.rope_dim) + 2 * a.kv_rank if latent else per_query_head_prefill
        self.prefill_pair, self.decode_pair = a.heads * per_query_head_prefill, a.heads * per_query_head_decode

    def keys(self, position: int) -> list[int]:
        """Keys the token at a position (from 1) looks at, in each layer."""
        windows = [self.a.sliding_window] * self.a.sliding_layers + [0] * (self.a.layers - self.a.sliding_layers)
        return [min(position, window) if window else position for window in windows]

    def weights(self, tokens: int) -> float:
        """Bytes of weights that a pass over so many tokens reads."""
        a = self.a
        one_expert = 3 * a.hidden * a.expert_inner
        experts = one_expert * a.experts * (a.layers - a.dense_layers) if a.experts else 0
        total = self._total()
        lookup = 0 if a.tied else a.vocab * a.hidden
        bits = self.q.weights_bits if self.q.expert_bits is None else self.q.expert_bits
        missed = 1.0
        for _ in range(tokens):
            missed *= 1 - (a.active_experts / a.experts if a.experts else 0)
        return (total - experts - lookup) * self.q.weights_bits / 8 + experts * (1 - missed) * bits / 8

    def _total(self) -> int:
        a, total = self.a, 0
        for layer in range(a.layers):
            if a.kv_rank:
                total += a.hidden * a.heads * a.head_dim + a.hidden * (a.kv_rank + a.rope_dim) + a.kv_rank
                total += a.kv_rank * a.heads * (a.head_dim - a.rope_dim + a.value_dim)
                total += a.heads * a.value_dim * a.hidden
            else:
                total += 2 * a.hidden * a.heads * a.head_dim + 2 * a.hidden * a.kv_heads * a.head_dim
            total += 2 * a.hidden
            if a.experts and layer >= a.dense_layers:
                total += a.hidden * a.experts + 3 * a.hidden * a.expert_inner * (a.experts + a.shared_experts)
            else:
                total += 3 * a.hidden * a.inner
        return total + a.hidden + a.vocab * a.hidden * (1 if a.tied else 2)

    def prompt(self, tokens: int) -> Count:
        """One pass over a prompt, its share of a batch of such prompts."""
        count = Count()
        for position in range(1, tokens + 1):
            count.flops += 2 * self.active + sum(self.prefill_pair * keys for keys in self.keys(position))
            count.bytes += self.a.layers * self.kv
        if self.batch is not None and tokens:
            count.bytes += self.weights(tokens * self.batch) / self.batch
        return count

    def samples(self, prompt: int, output: int, samples: int, shared: bool) -> Count:
        """Decoding all samples of a prompt side by side, a token each a step."""
        count = Count()
        for step in range(1, output + 1):
            for sample in range(samples):
                count.flops += 2 * self.active
                if self.batch is not None:
                    count.bytes += self.weights(self.batch) / self.batch
                for all_keys, own in zip(self.keys(prompt + step), self.keys(step), strict=True):
                    count.flops += self.decode_pair * all_keys
                    of_prompt = all_keys - own
                    count.bytes += self.kv * (own + (of_prompt if sample == 0 or not shared else 0))
        return count
