"""Counts what an architecture has: parameters, attention arithmetic, bytes of weights and of KV cache."""

from __future__ import annotations

from env.spec.architecture import Architecture, Quantisation


def total_parameters(a: Architecture) -> int:
    """Parameters kept in memory; tied embeddings counted once, vision towers and draft heads left out."""
    per_layer = attention_parameters(a) + a.layer_norms * a.hidden
    mixtures = a.layers - a.dense_layers if a.experts else 0
    plain = (a.layers - mixtures) * 3 * a.hidden * a.inner
    mixed = mixtures * (
        _router(a) + a.experts * expert_parameters(a) + a.shared_experts * 3 * a.hidden * a.expert_inner
    )
    return a.vocab * a.hidden + a.layers * per_layer + plain + mixed + a.hidden + _output_head(a)


def active_parameters(a: Architecture) -> int:
    """Parameters one token goes through: all but those of the experts it is not sent to.

    Embeddings are counted, as most model cards do; some leave the input embedding out.
    """
    mixtures = a.layers - a.dense_layers if a.experts else 0
    return total_parameters(a) - mixtures * (a.experts - a.active_experts) * expert_parameters(a)


def attention_parameters(a: Architecture) -> int:
    """Parameters of the attention of one layer."""
    if a.kv_rank:
        return _latent_attention(a)
    queries, keys = a.heads * a.head_dim, a.kv_heads * a.head_dim
    bias = {"none": 0, "qkv": queries + 2 * keys, "all": queries + 2 * keys + a.hidden}[a.attention_bias]
    extra = (2 * a.head_dim if a.qk_norm else 0) + (a.heads if a.sinks else 0)
    return 2 * a.hidden * (queries + keys) + bias + extra


def _latent_attention(a: Architecture) -> int:
    """Multi-head latent attention: queries and keys-values go through low-rank matrices, each with a norm."""
    queries = a.heads * a.head_dim
    into_queries = a.q_rank * (a.hidden + 1 + queries) if a.q_rank else a.hidden * queries
    compressed = a.hidden * (a.kv_rank + a.rope_dim) + a.kv_rank
    expanded = a.kv_rank * a.heads * (a.head_dim - a.rope_dim + a.value_dim)
    return into_queries + compressed + expanded + a.heads * a.value_dim * a.hidden


def expert_parameters(a: Architecture) -> int:
    """Parameters of one routed expert (a gated MLP)."""
    return 3 * a.hidden * a.expert_inner + (2 * a.expert_inner + a.hidden if a.expert_bias else 0)


def _router(a: Architecture) -> int:
    return a.experts * a.hidden + (a.experts if a.expert_bias else 0)


def _output_head(a: Architecture) -> int:
    if a.labels:
        return a.labels * a.hidden
    return 0 if a.tied else a.vocab * a.hidden


def expert_share(a: Architecture) -> int:
    """Parameters of all routed experts of all layers."""
    return (a.layers - a.dense_layers) * a.experts * expert_parameters(a) if a.experts else 0


def weight_bytes(a: Architecture, q: Quantisation) -> float:
    """Bytes the weights take in memory."""
    experts = expert_share(a)
    return (total_parameters(a) - experts) * q.weights_bits / 8 + experts * _expert_bits(q) / 8


def weight_bytes_read(a: Architecture, q: Quantisation, tokens: float) -> float:
    """Bytes of weights that one pass over so many tokens reads, once each.

    An untied input embedding is looked up row by row and left out. Of the routed experts, the expected share that at
    least one token goes to, ``1 - (1 - k / E)^tokens``, as if the router chose evenly.
    """
    experts = expert_share(a)
    lookup = 0 if a.tied else a.vocab * a.hidden
    plain = (total_parameters(a) - experts - lookup) * q.weights_bits / 8
    touched = 1 - (1 - a.active_experts / a.experts) ** tokens if a.experts else 0.0
    return plain + touched * experts * _expert_bits(q) / 8


def _expert_bits(q: Quantisation) -> float:
    return q.weights_bits if q.expert_bits is None else q.expert_bits


def kv_bytes(a: Architecture, q: Quantisation) -> float:
    """Bytes a token takes in the KV cache of one layer: keys and values of every kv head, or the latent of MLA."""
    numbers = a.kv_rank + a.rope_dim if a.kv_rank else 2 * a.kv_heads * a.head_dim
    return numbers * q.kv_bits / 8


def kv_bytes_per_token(a: Architecture, q: Quantisation) -> float:
    """Bytes a token takes in the KV cache of all layers, inside every window."""
    return a.layers * kv_bytes(a, q)


def prefill_pair_flops(a: Architecture) -> float:
    """FLOPs of one layer for each pair of a query token and a key token: scores and weighted values, all heads."""
    return 2.0 * a.heads * (a.head_dim + (a.value_dim if a.kv_rank else a.head_dim))


def decode_pair_flops(a: Architecture) -> float:
    """The same while decoding; MLA then works in the latent space, which is wider than a head but read once."""
    if a.kv_rank:
        return 2.0 * a.heads * (2 * a.kv_rank + a.rope_dim)
    return prefill_pair_flops(a)
