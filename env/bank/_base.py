"""The sample bank's contract: where draws are kept, by content, so that none is ever generated twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from env.backends._base import Draw, Message, ModelIdentity, Sampling

PromptKey = str
"""Hex SHA-256 of everything that decides a prompt's draws apart from their index."""


def draw_key(model: ModelIdentity, messages: Sequence[Message], sampling: Sampling) -> PromptKey:
    """Content key of a prompt's draws: model and revision, rendered messages, sampling parameters and seed.

    A later stage's messages contain the upstream output, so reuse is exact where the prefix is unchanged.
    """
    return _digest(
        [
            "draw",
            model.name,
            model.revision,
            [[m.role, m.content] for m in messages],
            [sampling.temperature, sampling.top_p, sampling.max_tokens, list(sampling.stop), sampling.seed],
        ]
    )


def score_key(model: ModelIdentity, messages: Sequence[Message]) -> PromptKey:
    """Content key of a verifier's score of a candidate (the last message)."""
    return _digest(["score", model.name, model.revision, [[m.role, m.content] for m in messages]])


def _digest(parts: list[object]) -> PromptKey:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


class SampleBank(Protocol):
    """Content-addressed store of draws.

    Implementations are safe for several threads and processes. A draw once settled never changes: settling the same
    (key, index) again keeps the first one, whatever the second contains.
    """

    def held(self, keys: Sequence[PromptKey]) -> Mapping[PromptKey, tuple[Draw, ...]]:
        """Draws held for each key, ordered by index; keys without draws are absent."""
        ...

    def settle(self, model: ModelIdentity, draws: Mapping[PromptKey, Sequence[Draw]]) -> int:
        """Store draws durably in one transaction; returns how many were new."""
        ...
