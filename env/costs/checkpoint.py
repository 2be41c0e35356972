"""Reads a checkpoint's architecture and quantisation from its config.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from env.errors import CheckpointError
from env.spec.architecture import Architecture, Quantisation
from env.spec.faults import faults_of

Config = Mapping[str, Any]
Numbers = dict[str, Any]

MXFP4_BITS = 4.25
"""Four bits a number and one 8-bit scale for 32 of them."""


@lru_cache(maxsize=256)
def read_architecture(checkpoint: Path) -> Architecture:
    """The architecture of a checkpoint in HF format.

    Args:
        checkpoint: a folder with a config.json.

    Raises:
        CheckpointError: there is no readable config.json, or it is of a family not known here.
    """
    path = checkpoint / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot read the model's size ({error}); state `parameters` instead") from error
    return architecture_of(config, str(path))


@lru_cache(maxsize=256)
def read_quantisation(checkpoint: Path) -> Quantisation:
    """Bits of the weights of a checkpoint; 16 where its config.json says nothing.

    Raises:
        CheckpointError: there is no readable config.json.
    """
    path = checkpoint / "config.json"
    try:
        return quantisation_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error


def architecture_of(config: object, source: str = "config.json") -> Architecture:
    """The architecture that a config.json states, vision towers and draft heads left out.

    Args:
        config: its content.
        source: named in errors.

    Raises:
        CheckpointError: it is of a family not known here, or a number is missing or impossible.
    """
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{source} is not a JSON object; state `parameters` instead")
    text = config.get("text_config")
    inner: Config = {**config, **text} if isinstance(text, Mapping) else config
    family = str(inner.get("model_type") or "")
    read = _FAMILIES.get(family)
    if read is None:
        known = ", ".join(sorted(_FAMILIES))
        raise CheckpointError(
            f"{source}: model_type {family!r} is none of those whose size can be counted ({known}); state "
            "`parameters`, or write its numbers as `architecture`"
        )
    try:
        return Architecture.model_validate(read(inner))
    except KeyError as error:
        raise CheckpointError(f"{source} lacks {error}; state `parameters` instead") from error
    except ValidationError as error:
        wrong = "; ".join(map(str, faults_of(error)))
        raise CheckpointError(f"{source} has impossible numbers: {wrong}; state `parameters` instead") from error


def quantisation_of(config: object) -> Quantisation:
    """Bits of the weights that a config.json states; the KV cache is the server's choice and taken to have 16."""
    if not isinstance(config, Mapping):
        return Quantisation()
    plain = {"float32": 32.0, "float64": 64.0}.get(str(config.get("dtype") or config.get("torch_dtype")), 16.0)
    kv = max(16.0, plain)
    stated = config.get("quantization_config")
    if not isinstance(stated, Mapping):
        return Quantisation(weights_bits=plain, kv_bits=kv)
    method = str(stated.get("quant_method", ""))
    if method == "mxfp4":
        return Quantisation(weights_bits=plain, expert_bits=MXFP4_BITS, kv_bits=kv)
    bits = stated.get("bits")
    if isinstance(bits, int | float) and bits > 0:
        return Quantisation(weights_bits=float(bits), kv_bits=kv)
    if stated.get("load_in_4bit"):
        return Quantisation(weights_bits=4.0, kv_bits=kv)
    if method == "fp8" or stated.get("load_in_8bit"):
        return Quantisation(weights_bits=8.0, kv_bits=kv)
    return Quantisation(weights_bits=plain, kv_bits=kv)


def _plain(config: Config, tied: bool = False) -> Numbers:
    """What all families have, under the names of transformers."""
    numbers: Numbers = {
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "inner": config["intermediate_size"],
        "vocab": config["vocab_size"],
        "tied": config.get("tie_word_embeddings", tied),
    }
    if config.get("num_key_value_heads") is not None:
        numbers["kv_heads"] = config["num_key_value_heads"]
    if config.get("head_dim") is not None:
        numbers["head_dim"] = config["head_dim"]
    named = config.get("architectures")
    if isinstance(named, list) and any("SequenceClassification" in str(name) for name in named):
        labels = config.get("id2label")
        numbers["labels"] = len(labels) if isinstance(labels, Mapping) else int(config.get("num_labels", 1))
    return numbers


def _windowed(config: Config, numbers: Numbers, sliding: Callable[[int], int]) -> Numbers:
    """Add the sliding window: layers as listed, else as the family has them by default.

    Args:
        config: the model's config.
        numbers: what is read so far.
        sliding: number of layers -> how many have the window.
    """
    window = config.get("sliding_window")
    if not window:
        return numbers
    kinds = config.get("layer_types")
    layers = int(numbers["layers"])
    count = sum(kind == "sliding_attention" for kind in kinds) if isinstance(kinds, list) else sliding(layers)
    return {**numbers, "sliding_window": window, "sliding_layers": count} if count else numbers


def _llama(config: Config) -> Numbers:
    return {**_plain(config), "attention_bias": "all" if config.get("attention_bias") else "none"}


def _qwen2(config: Config) -> Numbers:
    window = config if config.get("use_sliding_window") else {}
    numbers = {**_plain(config), "attention_bias": "qkv"}
    return _windowed(window, numbers, lambda n: max(0, n - int(config.get("max_window_layers", n))))


def _qwen3(config: Config) -> Numbers:
    bias = "all" if config.get("attention_bias") else "none"
    window = config if config.get("use_sliding_window") else {}
    numbers = {**_plain(config), "qk_norm": True, "attention_bias": bias}
    return _windowed(window, numbers, lambda n: max(0, n - int(config.get("max_window_layers", n))))


def _qwen3_moe(config: Config) -> Numbers:
    numbers = _qwen3(config)
    layers, step = int(numbers["layers"]), int(config.get("decoder_sparse_step", 1))
    plain = set(config.get("mlp_only_layers") or ()) | {i for i in range(layers) if (i + 1) % step}
    experts = config.get("num_experts", config.get("num_local_experts"))
    return {
        **numbers,
        "experts": experts,
        "active_experts": config["num_experts_per_tok"],
        "expert_inner": config["moe_intermediate_size"],
        "dense_layers": len(plain),
    }


def _mistral(config: Config) -> Numbers:
    return _windowed(config, _plain(config), lambda n: n)


def _mixtral(config: Config) -> Numbers:
    numbers = {
        **_plain(config),
        "experts": config["num_local_experts"],
        "active_experts": config["num_experts_per_tok"],
        "expert_inner": config["intermediate_size"],
    }
    return _windowed(config, numbers, lambda n: n)


def _gemma2(config: Config) -> Numbers:
    return _windowed(config, {**_plain(config, tied=True), "layer_norms": 4}, lambda n: (n + 1) // 2)


_GEMMA3_DEFAULTS = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208}
"""What checkpoints of Gemma 3 leave out of their config.json because transformers fills it in."""


def _gemma3(config: Config) -> Numbers:
    whole = {**_GEMMA3_DEFAULTS, **config}
    every = int(config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6)
    numbers = {**_plain(whole, tied=True), "layer_norms": 4, "qk_norm": True}
    return _windowed(config, numbers, lambda n: n - n // every)


def _phi3(config: Config) -> Numbers:
    return _windowed(config, _plain(config), lambda n: n)


def _deepseek(config: Config) -> Numbers:
    rope = int(config["qk_rope_head_dim"])
    numbers = {
        **_plain(config),
        "head_dim": int(config["qk_nope_head_dim"]) + rope,
        "rope_dim": rope,
        "value_dim": config["v_head_dim"],
        "kv_rank": config["kv_lora_rank"],
        "q_rank": config.get("q_lora_rank") or 0,
        "kv_heads": config["num_attention_heads"],
    }
    if not config.get("n_routed_experts"):
        return numbers
    return {
        **numbers,
        "experts": config["n_routed_experts"],
        "active_experts": config["num_experts_per_tok"],
        "shared_experts": config.get("n_shared_experts") or 0,
        "expert_inner": config["moe_intermediate_size"],
        "dense_layers": config.get("first_k_dense_replace", 0),
    }


def _gpt_oss(config: Config) -> Numbers:
    numbers = {
        **_plain(config),
        "attention_bias": "all",
        "sinks": True,
        "experts": config["num_local_experts"],
        "active_experts": config.get("num_experts_per_tok", config.get("experts_per_token")),
        "expert_inner": config["intermediate_size"],
        "expert_bias": True,
    }
    return _windowed(config, numbers, lambda n: (n + 1) // 2)


_FAMILIES: Mapping[str, Callable[[Config], Numbers]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi3": _phi3,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "gpt_oss": _gpt_oss,
}
