"""Uniform numbers that depend on what is drawn and on nothing else: prompt, sampling, draw index and position.

A counter-based generator (splitmix64, Steele, Lea and Flood 2014) has no state to share, so that a draw comes out the
same alone and inside any batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from env.backends._base import Sampling

Keys = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def prompt_key(tokens: Sequence[int], sampling: Sampling) -> int:
    """64-bit key of a prompt's draws: its tokens and every sampling parameter, the seed included."""
    digest = hashlib.blake2b(digest_size=8)
    settings = (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop, sampling.seed)
    digest.update(repr(settings).encode())
    digest.update(np.asarray(tokens, dtype="<i8").tobytes())
    return int.from_bytes(digest.digest(), "little")


def draw_keys(key: int, indices: Sequence[int]) -> Keys:
    """Keys of single draws of one prompt, shape [len(indices)]."""
    counters = np.asarray(indices, dtype=np.int64).astype(np.uint64)
    return _mix(_mix(np.array([key], np.uint64) ^ _MIX_2) + (counters + np.uint64(1)) * _GOLDEN)


def uniforms(keys: Keys, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Uniforms in [0, 1 - 2**-52] for each key (shape [..., B]) at each position (broadcast against it)."""
    bits = _mix(keys + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return (bits >> np.uint64(12)).astype(np.float64) * 2.0**-52


def _mix(value: Keys) -> Keys:
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * _MIX_1
        value = (value ^ (value >> np.uint64(27))) * _MIX_2
        mixed: Keys = value ^ (value >> np.uint64(31))
    return mixed
