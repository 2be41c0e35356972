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

    A later stage's messages contain the upstream output, so reuse is exact where the prefix is unchanged. Parameters
    that came later are part of the key only where they are set, so that draws of older archives are still found.
    """
    settings: list[object] = [
        sampling.temperature,
        sampling.top_p,
        sampling.max_tokens,
        list(sampling.stop),
        sampling.seed,
    ]
    if sampling.include_stop:
        settings.append("include_stop")
    return _digest(["draw", model.name, model.revision, [[m.role, m.content] for m in messages], settings])


def score_key(model: ModelIdentity, messages: Sequence[Message], partial: bool = False) -> PromptKey:
    """Content key of a verifier's score of a candidate (the last message), whole or `partial`."""
    parts: list[object] = ["score", model.name, model.revision, [[m.role, m.content] for m in messages]]
    return _digest([*parts, "partial"] if partial else parts)


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
