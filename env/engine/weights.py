"""Loads safetensors into the fused layout that the forward pass wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from env.engine.config import LlamaConfig, weight_files
from env.errors import CheckpointError


@dataclass(frozen=True)
class LayerWeights:
    """One block, each matrix ready for ``x @ matrix``; the norms' gains are folded into the matrix that follows."""

    qkv: Tensor
    """[hidden, (heads + 2 * kv_heads) * head_dim]; queries and keys have rotary pairs adjacent, queries are scaled."""

    out: Tensor
    """[heads * head_dim, hidden]."""

    gate_up: Tensor
    """[hidden, 2 * intermediate]."""

    down: Tensor
    """[intermediate, hidden]."""


@dataclass(frozen=True)
class LlamaWeights:
    """A whole model on one device."""

    embedding: Tensor
    """[vocab, hidden]."""

    layers: tuple[LayerWeights, ...]
    norm: Tensor
    """[hidden]: the final norm's gain."""

    head: Tensor
    """[hidden, vocab] of a language model, [hidden, 1] of a verifier."""


def load_weights(checkpoint: Path, config: LlamaConfig, device: torch.device, dtype: torch.dtype) -> LlamaWeights:
    """Read every tensor, check its shape, fuse and move it.

    Raises:
        CheckpointError: a file cannot be read, or a tensor is missing or has another shape than the config says.
    """
    tensors: dict[str, Tensor] = {}
    for path in weight_files(checkpoint):
        try:
            tensors.update(load_file(path))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); copy or export the checkpoint again") from error
    source = _Source(tensors, checkpoint)
    hidden, vocab = config.hidden_size, config.vocab_size

    def place(value: Tensor) -> Tensor:
        return value.to(device=device, dtype=dtype).contiguous()

    embedding = place(source.take("model.embed_tokens.weight", vocab, hidden))
    layers = []
    for number in range(config.layers):
        fused = _fuse_layer(source, f"model.layers.{number}.", config)
        layers.append(LayerWeights(*(place(matrix) for matrix in fused)))
    if config.task == "score":
        head = place(source.take("score.weight", 1, hidden)).t()
    elif config.tied:
        head = embedding.t()
    else:
        head = place(source.take("lm_head.weight", vocab, hidden)).t()
    return LlamaWeights(embedding, tuple(layers), place(source.take("model.norm.weight", hidden)), head)


class _Source:
    """Tensors by name, with errors that name the checkpoint."""

    def __init__(self, tensors: Mapping[str, Tensor], checkpoint: Path) -> None:
        self._tensors = tensors
        self._checkpoint = checkpoint

    def take(self, name: str, *shape: int) -> Tensor:
        """The named tensor as float32."""
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self._checkpoint} lacks the tensor {name}; export the model again")
        if tuple(tensor.shape) != shape:
            found, wanted = list(tensor.shape), list(shape)
            raise CheckpointError(f"{self._checkpoint}: {name} has shape {found}, config.json says {wanted}")
        return tensor.float()


def _fuse_layer(source: _Source, prefix: str, config: LlamaConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden, inner = config.hidden_size, config.intermediate_size
    wide, narrow = config.heads * config.head_dim, config.kv_heads * config.head_dim
    query = source.take(prefix + "self_attn.q_proj.weight", wide, hidden) * config.head_dim**-0.5
    key = source.take(prefix + "self_attn.k_proj.weight", narrow, hidden)
    value = source.take(prefix + "self_attn.v_proj.weight", narrow, hidden)
    before_attention = source.take(prefix + "input_layernorm.weight", hidden)
    before_mlp = source.take(prefix + "post_attention_layernorm.weight", hidden)
    pairs = _adjacent_pairs
    qkv = torch.cat([pairs(query, config.head_dim), pairs(key, config.head_dim), value]) * before_attention
    gate = source.take(prefix + "mlp.gate_proj.weight", inner, hidden)
    up = source.take(prefix + "mlp.up_proj.weight", inner, hidden)
    out = source.take(prefix + "self_attn.o_proj.weight", hidden, wide)
    down = source.take(prefix + "mlp.down_proj.weight", hidden, inner)
    return qkv.t(), out.t(), (torch.cat([gate, up]) * before_mlp).t(), down.t()


def _adjacent_pairs(matrix: Tensor, head_dim: int) -> Tensor:
    """Reorder each head's rows (i, i + d/2) -> (2i, 2i + 1), so that a rotary pair is one complex number.

    Scores are unchanged: queries and keys are permuted alike.
    """
    rows, columns = matrix.shape
    halves = matrix.view(rows // head_dim, 2, head_dim // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)
