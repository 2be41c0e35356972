"""A bank in memory, for library use and fast tests."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from env.backends._base import Draw, ModelIdentity
from env.bank._base import PromptKey


class MemorySampleBank:
    """Keeps draws in a dictionary; gone with the process."""

    def __init__(self) -> None:
        self._draws: dict[PromptKey, dict[int, Draw]] = {}
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
