"""Builds a verifier that compares before it is trained: how surprised is a language model by each word of an answer?

Trained from a plain language model, with the same losses, a verifier hardly learned to compare each token with what was
expected one position earlier, though the language model's surprise alone tells right from wrong. So the comparison is
built in, and what it means is trained:

- The residual stream is 32 dimensions wider than the language model's. The embedding holds there a constant, a mark of
  the token that ends the prompt, and a short code of the token. The product of the code with a linear image of the
  language model's last state is nearly the token's logit (a truncated singular value decomposition of the embedding).
- The lower layers are the language model's own, but for a factor in their norms.
- The first judging layer brings the image of the state one position earlier, where constant queries and keys meet at
  that rotary phase. Its inner units multiply it with the code, which gives the logit of each token where it stands, and
  subtract what the likeliest words have above a threshold.
- The second judging layer attends to the answer's tokens with the lowest logits.
"""

from __future__ import annotations

import math

import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from env.embedded.architecture import HEAD_SIZE
from env.embedded.vocabulary import ASSISTANT, DIGITS, DROPPED_IDS, EOS, KEPT_IDS, PAD, TOKEN_IDS

_ANSWER_WORDS = [TOKEN_IDS[word] for word in (*DIGITS, *KEPT_IDS, *DROPPED_IDS, "+", "-", "*", ";", "=", EOS)]
_RANK = 30
_MARK_SIZE = 0.3
"""Of the constant and the mark in the embedding; with a mean code of 0.5, both barely move the norms."""

_CODE_SIZE = 0.5
_THRESHOLD = 16.0
"""Logits above it count as likely; those of confident predictions are about 20, the others below 12."""

_FAST_PAIRS, _SHARPNESS = 3, 16.0
"""Rotary pairs that turn by more than 0.3 radians a position, and the weight that makes one position stand out."""

_STATE_SIZE = 40.0
"""Of the earlier state's image against about 2 of what lies in the same dimensions."""

_LOGIT_PLACE, _LOWEST_PLACE, _ANSWER_PLACE = 40, 43, 42
_LOGIT_SIZE, _ANSWER_SIZE = 3.0, 30.0
"""Where and how large the judging layers leave the logit and the sign that a token belongs to the answer."""

_ATTENTION, _LOW_LOGIT, _IN_ANSWER, _AT_MARK = 4.35, 6.0, 15.0, 3400.0
"""Weights of the last layer's head; the mark, small where it stands, counts against the token that ends the prompt."""


class _Places:
    """Dimensions of the wider stream above the language model's own."""

    def __init__(self, width: int) -> None:
        self.constant, self.mark, self.code = width, width + 1, slice(width + 2, width + 2 + _RANK)


def build_comparison(
    verifier: LlamaForSequenceClassification, model: LlamaForCausalLM, inputs: torch.Tensor, answers: torch.Tensor
) -> None:
    """Overwrite a fresh verifier with the comparison on top of a language model.

    Args:
        verifier: 32 dimensions wider and two layers deeper than the language model, as wide inside.
        model: The language model.
        inputs: Token ids of some candidates, ``(candidates, longest)``, on which sizes are measured.
        answers: Which of them belong to answers.
    """
    with torch.no_grad():
        width, depth = model.config.hidden_size, len(model.model.layers)
        places = _Places(width)
        codes, image = _factors(model)
        _widen(verifier, model, places, codes)
        states = verifier.model(input_ids=inputs, use_cache=False, output_hidden_states=True).hidden_states[depth]
        own = states[answers][:, :width]
        image_size = float((own / _size(own) @ image.T).pow(2).mean().sqrt())
        layer = verifier.model.layers[depth]
        typical = float(_size(states[inputs != TOKEN_IDS[PAD]]).mean())
        _look_back(layer, places, image, image_size, constant=_MARK_SIZE / typical)
        layer.mlp.down_proj.weight.zero_()
        states = verifier.model(input_ids=inputs, use_cache=False, output_hidden_states=True).hidden_states[depth + 1]
        _multiply(layer, places, codes, image_size, float(_size(states[answers]).mean()))
        _gather(verifier.model.layers[depth + 1], places)
        verifier.score.weight.zero_()


def _size(states: torch.Tensor) -> torch.Tensor:
    return states.pow(2).mean(-1, keepdim=True).sqrt()


def _factors(model: LlamaForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of all tokens, ``(vocabulary, rank)``, and the linear map of a normed state that gives their logits."""
    embedding = model.model.embed_tokens.weight
    mean = embedding[_ANSWER_WORDS].mean(0)
    _, sizes, directions = torch.linalg.svd(embedding[_ANSWER_WORDS] - mean, full_matrices=False)
    roots = sizes[:_RANK].sqrt()
    codes = (embedding - mean) @ directions[:_RANK].T / roots
    factor = _CODE_SIZE / codes[_ANSWER_WORDS].norm(dim=-1).mean()
    return codes * factor, directions[:_RANK] * model.model.norm.weight * roots[:, None] / factor


def _widen(
    verifier: LlamaForSequenceClassification, model: LlamaForCausalLM, places: _Places, codes: torch.Tensor
) -> None:
    """Copy the language model into the wider one."""
    width = model.config.hidden_size
    narrower = math.sqrt(width / verifier.config.hidden_size)
    embedding = verifier.model.embed_tokens.weight.zero_()
    embedding[:, :width] = model.model.embed_tokens.weight
    embedding[:, places.constant] = _MARK_SIZE
    embedding[TOKEN_IDS[ASSISTANT], places.mark] = _MARK_SIZE
    embedding[:, places.code] = codes
    verifier.model.norm.weight[:width] = model.model.norm.weight * narrower
    for layer, source in zip(verifier.model.layers, model.model.layers, strict=False):
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
            weight, copied = layer.get_submodule(part).weight, source.get_submodule(part).weight
            weight[:, width:] = 0.0
            weight[: copied.shape[0], :width] = copied
        for part in ("self_attn.o_proj", "mlp.down_proj"):
            weight, copied = layer.get_submodule(part).weight.zero_(), source.get_submodule(part).weight
            weight[:width, : copied.shape[1]] = copied
        for part in ("input_layernorm", "post_attention_layernorm"):
            layer.get_submodule(part).weight[:width] = source.get_submodule(part).weight * narrower


def _look_back(
    layer: torch.nn.Module, places: _Places, image: torch.Tensor, image_size: float, constant: float
) -> None:
    """One head brings the image from one position back, another looks for the end of the prompt.

    The first head's scores are ``sum(cos(f * (distance - 1)) - 1)`` over fast frequencies f: 0 one position back and
    negative elsewhere, whatever the norms make of the constant.
    """
    attention, half = layer.self_attn, HEAD_SIZE // 2
    width = image.shape[1]
    layer.input_layernorm.weight[:width] = math.sqrt(width / layer.input_layernorm.weight.shape[0])
    frequencies = 10000.0 ** (-torch.arange(half) / half)
    fast, slow = torch.zeros(half), torch.zeros(half)
    fast[:_FAST_PAIRS], slow[-1] = _SHARPNESS, _SHARPNESS * math.sqrt(_FAST_PAIRS)
    first, second = slice(0, HEAD_SIZE), slice(HEAD_SIZE, 2 * HEAD_SIZE)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[: 2 * HEAD_SIZE] = 0.0
    turned = torch.cat([fast * frequencies.cos() - slow, -fast * frequencies.sin()])
    attention.q_proj.weight[first, places.constant] = turned / constant
    attention.k_proj.weight[first, places.constant] = torch.cat([fast + slow, torch.zeros(half)]) / constant
    attention.v_proj.weight[:_RANK, :width] = image
    slowest = second.start + half - 1
    attention.q_proj.weight[slowest, places.constant] = 10 / constant
    attention.k_proj.weight[slowest, places.mark] = 10 / constant
    attention.v_proj.weight[second.start, places.mark] = 1 / constant
    attention.o_proj.weight.zero_()
    attention.o_proj.weight[:_RANK, :_RANK] = torch.eye(_RANK) * (_STATE_SIZE / image_size)
    attention.o_proj.weight[_ANSWER_PLACE, second.start] = _ANSWER_SIZE


def _multiply(layer: torch.nn.Module, places: _Places, codes: torch.Tensor, image_size: float, size: float) -> None:
    """Inner units: ``silu(x) * y + silu(-x) * -y`` is ``x * y``; ``silu(logit - threshold)`` for each answer word."""
    mlp, state = layer.mlp, image_size / _STATE_SIZE
    for unit in range(_RANK):
        for sign, row in ((1.0, unit), (-1.0, _RANK + unit)):
            mlp.gate_proj.weight[row] = mlp.up_proj.weight[row] = 0.0
            mlp.gate_proj.weight[row, places.code.start + unit] = sign * size
            mlp.up_proj.weight[row, unit] = sign * size * state
            mlp.down_proj.weight[_LOGIT_PLACE, row] = _LOGIT_SIZE
    for row, word in enumerate(_ANSWER_WORDS, 2 * _RANK):
        mlp.gate_proj.weight[row] = mlp.up_proj.weight[row] = 0.0
        mlp.gate_proj.weight[row, :_RANK] = codes[word] * size * state
        mlp.gate_proj.weight[row, places.constant] = -_THRESHOLD * size / _MARK_SIZE
        mlp.up_proj.weight[row, places.constant] = size / _MARK_SIZE
        mlp.down_proj.weight[_LOGIT_PLACE, row] = -_LOGIT_SIZE


def _gather(layer: torch.nn.Module, places: _Places) -> None:
    """One head attends from the answer to its tokens of lowest logit, not to the prompt nor the token that ends it."""
    attention, slowest = layer.self_attn, HEAD_SIZE // 2 - 1
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[:HEAD_SIZE] = 0.0
    attention.q_proj.weight[slowest, _ANSWER_PLACE] = _ATTENTION
    attention.k_proj.weight[slowest, _LOGIT_PLACE] = -_LOW_LOGIT
    attention.k_proj.weight[slowest, _ANSWER_PLACE] = _IN_ANSWER
    attention.k_proj.weight[slowest, places.mark] = -_AT_MARK
    attention.v_proj.weight[0, _LOGIT_PLACE] = 1.0
    attention.o_proj.weight.zero_()
    attention.o_proj.weight[_LOWEST_PLACE, 0] = _ANSWER_SIZE
    layer.mlp.down_proj.weight.zero_()
