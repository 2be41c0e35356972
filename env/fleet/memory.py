"""How much memory a model takes on each of its devices: weights, KV cache and what the engine needs besides.

Weights come from the safetensors headers (or, without files, from config.json), in the data type served. A token of KV
cache takes ``2 * layers * kv_heads * head_dim * bytes`` (keys and values), or ``layers * (latent + rope) * bytes`` with
multi-head latent attention. Tensor parallelism splits weights and KV heads; a head that cannot be split is repeated.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env.fleet.errors import FleetError
from env.fleet.spec import GIB, FleetModelSpec, gib

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "F64": 8, "F32": 4, "F16": 2, "BF16": 2}
QUANTISED_BYTES = {"fp8": 1.0, "ptpc_fp8": 1.0, "int8": 1.0, "bitsandbytes": 0.5, "mxfp4": 0.5}
"""Bytes a linear layer's weight takes where the engine quantises plain weights while loading."""

DEFAULT_OVERHEAD = 2 * GIB
"""Context of the device, activations, captured graphs. An allowance: on vLLM's CPU build 1.4 to 1.8 GiB were measured
for a model of a million parameters; on a GPU nothing was measured, so state ``overhead`` where it matters."""

DEFAULT_SEQUENCES = 8


@dataclass(frozen=True)
class Shape:
    """What the memory of a model depends on."""

    linear_parameters: int
    """In layers' matrices, which quantisation shrinks."""

    other_parameters: int
    """Embeddings, norms and the output head, which stay."""

    stored_bytes: int | None
    """Size of the weight files; what an already quantised checkpoint takes."""

    stored_dtype: str
    kv_values_per_token: int
    """Numbers one token adds to the cache, over all layers and heads."""

    kv_heads: int
    """How far tensor parallelism can split them; 1 with latent attention."""

    max_positions: int
    vocabulary: int
    quantised: bool


@dataclass(frozen=True)
class Demand:
    """Bytes on each device of one model."""

    model: str
    devices: int
    weights: int | None
    """None where the checkpoint is not on this machine."""

    kv_wanted: int | None
    kv_least: int | None
    """One sequence of the longest length, without which the engine refuses to start."""

    overhead: int
    stated: int | None
    """What the fleet file says to claim, all included; None: computed."""

    stated_share: float | None = None
    """The same as a share of the device."""

    def claim(self, total: int) -> int:
        """Bytes to claim on a device with that much memory in all.

        Raises:
            FleetError: neither stated nor computable.
        """
        if self.stated_share is not None:
            return int(self.stated_share * total)
        if self.stated is not None:
            return self.stated
        if self.weights is None or self.kv_wanted is None:
            raise FleetError(
                f"models.{self.model}: its checkpoint is not on this machine, so its memory is not known; state memory "
                "or gpu_memory_utilization, or download it first"
            )
        return self.weights + self.kv_wanted + self.overhead

    @property
    def least(self) -> int | None:
        """Bytes without which it cannot start; None where unknown."""
        if self.weights is None or self.kv_least is None:
            return None
        return self.weights + self.kv_least + self.overhead

    def kv_room(self, total: int) -> int | None:
        """Bytes left for the KV cache within the claim; None where unknown."""
        return None if self.weights is None else self.claim(total) - self.weights - self.overhead

    def parts(self) -> str:
        """The sum, for people."""
        if self.weights is None or self.kv_wanted is None or self.kv_least is None:
            return "weights unknown"
        return f"weights {gib(self.weights)} + KV cache {gib(self.kv_wanted)} + overhead {gib(self.overhead)}"


def demand_of(name: str, model: FleetModelSpec, checkpoint: Path | None) -> Demand:
    """What a model needs on each of its devices.

    Args:
        name: its name in the fleet file.
        model: how it is served.
        checkpoint: its local folder; None where only the repository's name is known.

    Raises:
        FleetError: the checkpoint's config cannot be read.
    """
    overhead = DEFAULT_OVERHEAD if model.overhead is None else model.overhead
    if checkpoint is None:
        return Demand(name, model.devices, None, None, None, overhead, model.memory, model.gpu_memory_utilization)
    shape = read_shape(checkpoint)
    length = model.max_model_len or shape.max_positions
    per_token = kv_bytes_per_token(shape, model)
    tokens = model.kv_tokens or length * min(DEFAULT_SEQUENCES, model.max_num_seqs or DEFAULT_SEQUENCES)
    return Demand(
        model=name,
        devices=model.devices,
        weights=math.ceil(weight_bytes(shape, model) / model.tensor_parallel),
        kv_wanted=math.ceil(max(tokens, length) * per_token),
        kv_least=math.ceil(length * per_token),
        overhead=overhead,
        stated=model.memory,
        stated_share=model.gpu_memory_utilization,
    )


def weight_bytes(shape: Shape, model: FleetModelSpec) -> float:
    """Bytes of one copy's weights as served."""
    if shape.quantised and shape.stored_bytes is not None:
        return shape.stored_bytes
    wide = served_bytes(shape, model)
    narrow: float = wide
    if model.quantisation is not None:
        narrow = QUANTISED_BYTES.get(model.quantisation, wide)
    return shape.linear_parameters * narrow + shape.other_parameters * wide


def kv_bytes_per_token(shape: Shape, model: FleetModelSpec) -> float:
    """Bytes one token adds to the KV cache of each device."""
    parts = min(model.tensor_parallel, shape.kv_heads)
    return shape.kv_values_per_token * served_bytes(shape, model) / parts


def served_bytes(shape: Shape, model: FleetModelSpec) -> int:
    """Bytes of one number in the data type served; ``auto`` serves float32 checkpoints in 16 bits, as vLLM does."""
    if model.dtype == "auto":
        return min(2, DTYPE_BYTES.get(shape.stored_dtype, 2))
    return DTYPE_BYTES[model.dtype]


def read_shape(checkpoint: Path) -> Shape:
    """Read ``config.json`` and the headers of the weight files (not the weights).

    Raises:
        FleetError: the config is missing, broken, or lacks a number.
    """
    path = checkpoint / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        config = {**raw, **(raw.get("text_config") or {})}
        files = sorted(checkpoint.glob("*.safetensors"))
        linear, other = _stored_parameters(files) if files else _computed_parameters(config)
        values, heads = _kv_values(config)
        return Shape(
            linear_parameters=linear,
            other_parameters=other,
            stored_bytes=sum(file.stat().st_size for file in files) or None,
            stored_dtype=str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"),
            kv_values_per_token=values,
            kv_heads=heads,
            max_positions=int(config.get("max_position_embeddings") or 2048),
            vocabulary=int(config["vocab_size"]),
            quantised=bool(raw.get("quantization_config")),
        )
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise FleetError(f"{path}: cannot read the model's size ({error!r}); state memory in the fleet file") from error


def _stored_parameters(files: list[Path]) -> tuple[int, int]:
    linear = other = 0
    for file in files:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            size = math.prod(tensor["shape"])
            in_layer = len(tensor["shape"]) >= 2 and "embed" not in name and "lm_head" not in name
            linear, other = (linear + size, other) if in_layer else (linear, other + size)
    return linear, other


def _computed_parameters(config: Mapping[str, Any]) -> tuple[int, int]:
    """Of a Llama-shaped decoder, mixture of experts included."""
    width, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head = int(config.get("head_dim") or width // heads)
    experts = int(config.get("num_local_experts") or config.get("num_experts") or 1)
    hidden = int(config.get("moe_intermediate_size") or config["intermediate_size"])
    linear = layers * (width * head * (2 * heads + 2 * kv_heads) + 3 * width * hidden * experts)
    copies = 1 if config.get("tie_word_embeddings", False) else 2
    return linear, copies * int(config["vocab_size"]) * width + (2 * layers + 1) * width


def _kv_values(config: Mapping[str, Any]) -> tuple[int, int]:
    """Cached numbers per token and the heads they can be split by."""
    layers = int(config["num_hidden_layers"])
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        layers = sum("linear" not in str(kind) and "mamba" not in str(kind) for kind in kinds)
    if config.get("kv_lora_rank"):
        return layers * (int(config["kv_lora_rank"]) + int(config.get("qk_rope_head_dim") or 0)), 1
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    return 2 * layers * kv_heads * head, kv_heads
