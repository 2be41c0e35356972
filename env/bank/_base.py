"""The sample bank's contract: where draws are kept, by content, so that none is ever generated twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from env.backends._base import Draw, Message, ModelIdentity, Sampling
from env.spec.stage import ParserSpec

PromptKey = str
"""Hex SHA-256 of everything that decides a prompt's draws apart from their index."""

ParserKey = str
"""Hex SHA-256 of how a stage's answers are read."""

READING_VERSION = 1
"""Counts up when the same parser spec begins to read texts differently, so that older answers are not mixed in."""


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


def parser_key(spec: ParserSpec) -> ParserKey:
    """Content key of a way to read answers."""
    return _digest(["parser", READING_VERSION, spec.model_dump(mode="json")])


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


@runtime_checkable
class AnswerBank(SampleBank, Protocol):
    """A bank that keeps what was read in its draws, so that the texts themselves can go.

    A bank drops a text only where the answers of all its draws were kept, never one that may still have to be read.
    """

    def answers(self, parser: ParserKey, keys: Sequence[PromptKey]) -> Mapping[PromptKey, Mapping[int, str | None]]:
        """Canonical answers kept of a parser by draw index; draws without one are absent.

        None is an answer too: the parser found none in the text. Empty texts have none and need not be kept.
        """
        ...

    def keep_answers(
        self,
        parser: ParserKey,
        answers: Mapping[PromptKey, Mapping[int, str | None]],
        texts_needed: bool = False,
    ) -> None:
        """Keep canonical answers of settled draws, durably, in one transaction. The first answer of a draw stays.

        Answers of draws that were not settled are ignored.

        Args:
            parser: how they were read.
            answers: by key and draw index; none for a key where all are kept already: it counts as read all the same.
            texts_needed: the texts of these prompts will be asked for again (a verifier judges them, say): they stay
                until this is called for the prompt without it.
        """
        ...
