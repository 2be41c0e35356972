"""A bank in memory, for library use and fast tests."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from env.backends._base import Draw, ModelIdentity
from env.bank._base import ParserKey, PromptKey


class MemorySampleBank:
    """Keeps draws in a dictionary; gone with the process. Its texts are never dropped."""

    def __init__(self) -> None:
        self._draws: dict[PromptKey, dict[int, Draw]] = {}
        self._answers: dict[tuple[ParserKey, PromptKey], dict[int, str | None]] = {}
        self._lock = threading.Lock()

    def held(self, keys: Sequence[PromptKey]) -> Mapping[PromptKey, tuple[Draw, ...]]:
        """See `SampleBank.held`."""
        with self._lock:
            return {
                key: tuple(draw for _, draw in sorted(self._draws[key].items())) for key in keys if self._draws.get(key)
            }

    def settle(self, model: ModelIdentity, draws: Mapping[PromptKey, Sequence[Draw]]) -> int:
        """See `SampleBank.settle`."""
        new = 0
        with self._lock:
            for key, batch in draws.items():
                slot = self._draws.setdefault(key, {})
                for draw in batch:
                    if draw.index not in slot:
                        slot[draw.index] = draw
                        new += 1
        return new

    def answers(self, parser: ParserKey, keys: Sequence[PromptKey]) -> Mapping[PromptKey, Mapping[int, str | None]]:
        """See `AnswerBank.answers`."""
        with self._lock:
            return {key: dict(self._answers[parser, key]) for key in keys if self._answers.get((parser, key))}

    def keep_answers(
        self,
        parser: ParserKey,
        answers: Mapping[PromptKey, Mapping[int, str | None]],
        texts_needed: bool = False,
    ) -> None:
        """See `AnswerBank.keep_answers`."""
        with self._lock:
            for key, batch in answers.items():
                settled = self._draws.get(key, {})
                slot = self._answers.setdefault((parser, key), {})
                for index, answer in batch.items():
                    if index in settled and settled[index].text:
                        slot.setdefault(index, answer)
