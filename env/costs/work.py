"""Arithmetic and memory traffic of processing a prompt and of decoding a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

from env.costs._base import ModelProfile
from env.costs.architecture import (
    decode_pair_flops,
    kv_bytes,
    kv_bytes_per_token,
    prefill_pair_flops,
    weight_bytes_read,
)
from env.spec.architecture import Architecture


@dataclass(frozen=True)
class Work:
    """What some computation does."""

    flops: float
    bytes: float
    """Moved between memory and processor."""


def keys_attended(first: float, count: float, window: float = math.inf) -> float:
    """Sum of ``min(first + j, window)`` over j = 1..count: keys that `count` tokens in a row look at.

    Exact for whole counts; in between it runs smoothly, for counts that are means.

    Args:
        first: tokens already in the context.
        count: tokens that follow.
        window: tokens a layer looks back on, the token itself included.
    """
    growing = count if window == math.inf else min(max(float(math.floor(window - first)), 0.0), count)
    return growing * first + growing * (growing + 1) / 2 + ((count - growing) * window if count > growing else 0.0)


def _over_layers(a: Architecture, first: float, count: float) -> float:
    """`keys_attended` summed over the layers, those with a window apart."""
    full = (a.layers - a.sliding_layers) * keys_attended(first, count)
    return full + (a.sliding_layers * keys_attended(first, count, a.sliding_window) if a.sliding_layers else 0.0)


def prefill_work(model: ModelProfile, a: Architecture, prompt: float, batch: int | None) -> Work:
    """Processing one prompt: ``2 P Np`` and causal attention; weights read, keys and values written.

    Args:
        model: its active parameters P and quantisation.
        a: its architecture.
        prompt: tokens Np.
        batch: prompts that share the reading of the weights; None leaves the weights' traffic out.
    """
    if not prompt:
        return Work(0.0, 0.0)
    flops = 2 * model.active * prompt + prefill_pair_flops(a) * _over_layers(a, 0, prompt)
    weights = 0.0 if batch is None else weight_bytes_read(a, model.quantisation, prompt * batch) / batch
    return Work(flops, weights + kv_bytes_per_token(a, model.quantisation) * prompt)


def decode_work(
    model: ModelProfile, a: Architecture, prompt: float, output: float, samples: int, batch: int | None, shared: bool
) -> Work:
    """Decoding samples of one prompt token by token.

    Token j of a sample looks at ``Np + j`` keys: those before it are read, its own is written.

    Args:
        model: its active parameters and quantisation.
        a: its architecture.
        prompt: tokens Np.
        output: tokens of one sample.
        samples: how many.
        batch: sequences that share the reading of the weights; None leaves the weights' traffic out.
        shared: the prompt's keys and values are read once for all samples, not once for each.
    """
    keys = _over_layers(a, prompt, output)
    own = _over_layers(a, 0, output)
    flops = samples * (2 * model.active * output + decode_pair_flops(a) * keys)
    read = (own * samples + (keys - own if samples else 0.0)) if shared else keys * samples
    weights = 0.0 if batch is None else weight_bytes_read(a, model.quantisation, batch) / batch
    return Work(flops, samples * output * weights + kv_bytes(a, model.quantisation) * read)
