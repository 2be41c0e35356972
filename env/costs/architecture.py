"""How many parameters a checkpoint has, read from its config.json."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from env.errors import CheckpointError


@lru_cache(maxsize=256)
def llama_parameters(checkpoint: Path) -> int:
    """Active parameters of a dense Llama-style checkpoint (all of them; tied embeddings counted once).

    Raises:
        CheckpointError: there is no readable config.json.
    """
    path = checkpoint / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return _count(config)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot read the model's size ({error}); state `parameters` instead") from error


def _count(config: dict[str, object]) -> int:
    def size(name: str, default: int | None = None) -> int:
        value = config.get(name, default)
        if not isinstance(value, int):
            raise KeyError(name)
        return value

    width, layers, hidden = size("hidden_size"), size("num_hidden_layers"), size("intermediate_size")
    heads = size("num_attention_heads")
    head = size("head_dim", width // heads) if config.get("head_dim") is not None else width // heads
    key_heads = size("num_key_value_heads", heads)
    attention = width * head * (2 * heads + 2 * key_heads)
    per_layer = attention + 3 * width * hidden + 2 * width
    architectures = config.get("architectures")
    classifier = isinstance(architectures, list) and any("SequenceClassification" in str(a) for a in architectures)
    heads_out = 0 if config.get("tie_word_embeddings", False) or classifier else size("vocab_size") * width
    labels = width if classifier else 0
    return size("vocab_size") * width + layers * per_layer + width + heads_out + labels
