"""What the engine is asked for and what it answers, below the level of messages and backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from env.backends._base import Sampling
from env.engine.randomness import Keys, draw_keys, prompt_key


@dataclass(frozen=True)
class Generated:
    """One finished generation."""

    tokens: tuple[int, ...]
    """Everything generated up to the end, the end token included."""

    logprobs: tuple[float, ...]
    """Natural log-probability of each token at temperature 1."""

    text: str
    """Decoded without special tokens, cut at the stop string that ended it."""

    finish_reason: Literal["stop", "length"]
    stop: str | None = None
    """The stop string that ended it; None for the end token or the length limit."""


@dataclass(eq=False)
class Job:
    """One prompt and the draws wanted of it; filled in by the engine's thread, then handed to ``settle``."""

    tokens: Sequence[int]
    sampling: Sampling
    indices: tuple[int, ...]
    settle: Callable[[Job], None] = lambda job: None
    """Called once, on the engine's thread, when all draws are there or the job failed."""

    progress: Callable[[int, Sequence[int]], None] | None = None
    """Called on the engine's thread with (draw index, tokens so far) while a draw grows."""

    consecutive_seeds: bool = False
    """Draw ``i`` is draw 0 of seed ``sampling.seed + i`` (what servers mean by ``n`` and ``seed``), not draw ``i``."""

    partial: str = ""
    """The partial answer that ``tokens`` end with and the draws continue."""

    generated: dict[int, Generated] = field(default_factory=dict)
    """Finished draws by index."""

    failure: str | None = None
    cancelled: bool = False
    """Set by the asker from any thread; rows of a cancelled job are dropped."""

    @property
    def row_indices(self) -> tuple[int, ...]:
        """Draws that need a row of their own: one for all of a greedy prompt, each index once otherwise."""
        return self.indices[:1] if self.sampling.temperature == 0 else tuple(dict.fromkeys(self.indices))

    def row_keys(self) -> Keys:
        """What decides each row's random numbers, in the order of `row_indices`."""
        if not self.consecutive_seeds:
            return draw_keys(prompt_key(self.tokens, self.sampling), self.row_indices)
        seeded = [replace(self.sampling, seed=self.sampling.seed + index) for index in self.row_indices]
        return np.concatenate([draw_keys(prompt_key(self.tokens, one), [0]) for one in seeded])

    def answer(self) -> tuple[Generated, ...]:
        """The draws in the order of ``indices``; greedy draws are all the same one."""
        if self.sampling.temperature == 0:
            return tuple(self.generated[self.indices[0]] for _ in self.indices)
        return tuple(self.generated[index] for index in self.indices)

    def limit(self, max_positions: int) -> int:
        """Tokens that may be generated: ``max_tokens``, less where the context ends before."""
        return min(self.sampling.max_tokens, max_positions - len(self.tokens))

    def objection(self, max_positions: int, vocabulary: int) -> str | None:
        """Why this job cannot run, for people; None if it can."""
        sampling = self.sampling
        if not self.tokens:
            return "the prompt is empty"
        if len(self.tokens) >= max_positions:
            return f"the prompt of {len(self.tokens)} tokens leaves no room in a context of {max_positions}"
        if not all(0 <= token < vocabulary for token in self.tokens):
            return f"the prompt holds token ids outside the vocabulary of {vocabulary}"
        if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
            return f"temperature must be a number >= 0, not {sampling.temperature}"
        if not 0 < sampling.top_p <= 1:
            return f"top_p must be in (0, 1], not {sampling.top_p}"
        if sampling.max_tokens < 1:
            return f"max_tokens must be at least 1, not {sampling.max_tokens}"
        if not all(sampling.stop):
            return "a stop string must not be empty"
        if any(index < 0 for index in self.indices):
            return "draw indices must not be negative"
        return None


@dataclass(eq=False)
class Row:
    """One draw on its way through the decode batch."""

    job: Job
    index: int
    limit: int
    """Tokens it may generate at most."""

    key: np.uint64
    """Decides its random numbers."""


@dataclass(frozen=True)
class Grown:
    """A row that ended: raw tokens and log-probabilities, stop strings not yet applied."""

    row: Row
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool
    """The last token is an end token."""
