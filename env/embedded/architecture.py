"""Sizes of the embedded models, and how each starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from env.embedded.vocabulary import BOS, DIGITS, EOS, PAD, TOKEN_IDS, WORDS

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

HEAD_SIZE = 32
LONGEST_SEQUENCE = 256


@dataclass(frozen=True)
class Size:
    """Width, depth and inner width of a Llama."""

    hidden: int
    layers: int
    inner: int


SIZES = {
    "xs": Size(hidden=32, layers=2, inner=96),
    "s": Size(hidden=64, layers=2, inner=192),
    "m": Size(hidden=96, layers=3, inner=256),
    "l": Size(hidden=128, layers=4, inner=352),
}
VERIFIER_SIZE = Size(hidden=96, layers=4, inner=192)
JUDGING_LAYERS = 2
"""Layers of the verifier above those that predict: one can compare, one can gather."""

CRITIC_SIZE = Size(hidden=64, layers=3, inner=192)


def llama_config(size: Size, **more: object) -> LlamaConfig:
    """Configuration of a plain Llama of this size with the ledger vocabulary."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // HEAD_SIZE,
        num_key_value_heads=size.hidden // HEAD_SIZE,
        head_dim=HEAD_SIZE,
        hidden_act="silu",
        max_position_embeddings=LONGEST_SEQUENCE,
        tie_word_embeddings=True,
        attention_bias=False,
        attention_dropout=0.0,
        pad_token_id=TOKEN_IDS[PAD],
        bos_token_id=TOKEN_IDS[BOS],
        eos_token_id=TOKEN_IDS[EOS],
        dtype="float32",
        **more,
    )


def new_model(name: str, seed: int) -> LlamaForCausalLM:
    """A fresh language model; `SIZES` names the sizes."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(llama_config(SIZES[name]))
    _place_digits_on_circles(model.model.embed_tokens.weight)
    return model


def new_critic(seed: int) -> LlamaForCausalLM:
    """A fresh critic, a language model."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(llama_config(CRITIC_SIZE))


def new_verifier(seed: int) -> LlamaForSequenceClassification:
    """A fresh verifier with one logit."""
    import torch
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(seed)
    return LlamaForSequenceClassification(llama_config(VERIFIER_SIZE, num_labels=1))


def start_from(model: PreTrainedModel, folder: Path) -> None:
    """Copy a language model of the same width into the lower layers; those above it start as the identity."""
    import torch
    from transformers import LlamaForCausalLM

    trained = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.model.load_state_dict(trained.model.state_dict(), strict=False)
    for layer in model.model.layers[len(trained.model.layers) :]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)


def _place_digits_on_circles(weight: torch.Tensor) -> None:
    """Start digits as Fourier features modulo 10, which makes carrying digits quick to learn."""
    import torch

    with torch.no_grad():
        weight.normal_(0.0, 0.05)
        for digit in DIGITS:
            row = weight[TOKEN_IDS[digit]]
            for frequency in range(1, 6):
                angle = 2 * math.pi * frequency * int(digit) / 10
                row[2 * frequency - 2] = 0.15 * math.cos(angle)
                row[2 * frequency - 1] = 0.15 * math.sin(angle)
