"""Reads what a checkpoint folder says about its model, and refuses what the engine does not serve."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from env.errors import CheckpointError

Task = Literal["generate", "score"]

_ARCHITECTURES: Mapping[str, Task] = {
    "LlamaForCausalLM": "generate",
    "LlamaForSequenceClassification": "score",
}
_IDENTITY_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class LlamaConfig:
    """The numbers of one Llama-style model."""

    task: Task
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    norm_eps: float
    tied: bool
    rope_theta: float
    rope_scaling: Mapping[str, Any]
    """Empty for plain rotary embeddings; else the checkpoint's own ``linear`` or ``llama3`` settings."""

    eos_token_ids: tuple[int, ...]
    """Any of these ends a generation."""

    def inverse_frequencies(self) -> tuple[float, ...]:
        """Rotary angular frequencies, one for each pair of head dimensions (radians per position)."""
        frequencies = [self.rope_theta ** (-2 * i / self.head_dim) for i in range(self.head_dim // 2)]
        kind = _rope_kind(self.rope_scaling)
        if kind == "default":
            return tuple(frequencies)
        factor = float(self.rope_scaling["factor"])
        if kind == "linear":
            return tuple(f / factor for f in frequencies)
        return tuple(_llama3_frequency(f, factor, self.rope_scaling) for f in frequencies)


def read_config(checkpoint: Path) -> LlamaConfig:
    """Parse ``config.json`` (and the end tokens of ``generation_config.json``).

    Raises:
        CheckpointError: a file is missing or broken, or the model is none that the engine serves.
    """
    raw = _read_json(checkpoint / "config.json")
    task = _served_task(raw, checkpoint)
    try:
        return _parse(raw, task, _eos_ids(raw, checkpoint))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint / 'config.json'} is not a usable Llama config ({error!r}); export the model again with "
            "save_pretrained"
        ) from error


def weight_files(checkpoint: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in the order they are read.

    Raises:
        CheckpointError: there are none.
    """
    files = sorted(checkpoint.glob("model*.safetensors"))
    if not files:
        raise CheckpointError(f"{checkpoint} holds no model*.safetensors; save the model with safetensors weights")
    return files


def checkpoint_revision(checkpoint: Path) -> str:
    """Hex SHA-256 over what decides a checkpoint's draws: config, weights, tokenizer and chat template.

    Raises:
        CheckpointError: config, weights or tokenizer are missing.
    """
    digest = hashlib.sha256()
    for required in ("config.json", "tokenizer.json"):
        if not (checkpoint / required).is_file():
            raise CheckpointError(f"{checkpoint} has no {required}; point to a folder written by save_pretrained")
    named = [checkpoint / name for name in _IDENTITY_FILES if (checkpoint / name).is_file()]
    for path in [*named, *weight_files(checkpoint)]:
        digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; point to a folder written by save_pretrained") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return value


def _served_task(raw: Mapping[str, Any], checkpoint: Path) -> Task:
    served = " and ".join(_ARCHITECTURES)
    for name in raw.get("architectures") or ():
        if name in _ARCHITECTURES:
            return _ARCHITECTURES[name]
    found = ", ".join(map(str, raw.get("architectures") or ())) or f"model_type {raw.get('model_type')!r}"
    raise CheckpointError(
        f"{checkpoint} is {found}; the torch engine serves {served} only: serve it with vLLM and use its URL"
    )


def _parse(raw: Mapping[str, Any], task: Task, eos: tuple[int, ...]) -> LlamaConfig:
    for flag in ("attention_bias", "mlp_bias"):
        if raw.get(flag):
            raise CheckpointError(f"the checkpoint sets {flag}; the torch engine serves Llama models without biases")
    if raw.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"the checkpoint uses hidden_act {raw['hidden_act']!r}; the torch engine serves silu")
    if raw.get("quantization_config"):
        raise CheckpointError("the checkpoint is quantized; the torch engine serves plain weights: use vLLM")
    if task == "score" and _labels(raw) != 1:
        raise CheckpointError(f"a verifier needs num_labels = 1, the checkpoint has {_labels(raw)}")
    theta, scaling = _rope(raw)
    heads = int(raw["num_attention_heads"])
    hidden = int(raw["hidden_size"])
    config = LlamaConfig(
        task=task,
        vocab_size=int(raw["vocab_size"]),
        hidden_size=hidden,
        intermediate_size=int(raw["intermediate_size"]),
        layers=int(raw["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(raw.get("num_key_value_heads") or heads),
        head_dim=int(raw.get("head_dim") or hidden // heads),
        max_positions=int(raw.get("max_position_embeddings", 2048)),
        norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        tied=bool(raw.get("tie_word_embeddings", False)),
        rope_theta=theta,
        rope_scaling=scaling,
        eos_token_ids=eos,
    )
    if config.heads % config.kv_heads or config.head_dim % 2:
        raise ValueError("heads must be a multiple of key-value heads, and head_dim even")
    return config


def _labels(raw: Mapping[str, Any]) -> int:
    if "num_labels" in raw:
        return int(raw["num_labels"])
    return len(raw["id2label"]) if raw.get("id2label") else 2


def _rope(raw: Mapping[str, Any]) -> tuple[float, Mapping[str, Any]]:
    """Theta and scaling, from ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (older)."""
    parameters = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = float(parameters.get("rope_theta") or raw.get("rope_theta") or 10000.0)
    kind = _rope_kind(parameters)
    if kind not in ("default", "linear", "llama3"):
        raise CheckpointError(f"the checkpoint uses rope type {kind!r}; the engine serves default, linear and llama3")
    return theta, {} if kind == "default" else dict(parameters)


def _rope_kind(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("rope_type") or parameters.get("type") or "default")


def _llama3_frequency(frequency: float, factor: float, scaling: Mapping[str, Any]) -> float:
    """Llama 3.1's scaling: long wavelengths are stretched by ``factor``, short ones kept, smooth in between."""
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    original = float(scaling["original_max_position_embeddings"])
    wavelength = 2 * math.pi / frequency
    if wavelength < original / high:
        return frequency
    if wavelength > original / low:
        return frequency / factor
    smooth = (original / wavelength - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency


def _eos_ids(raw: Mapping[str, Any], checkpoint: Path) -> tuple[int, ...]:
    """End tokens; ``generation_config.json`` wins over ``config.json``, as in transformers."""
    path = checkpoint / "generation_config.json"
    generation = _read_json(path) if path.is_file() else {}
    value = generation.get("eos_token_id")
    value = raw.get("eos_token_id") if value is None else value
    if value is None:
        return ()
    return tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)
