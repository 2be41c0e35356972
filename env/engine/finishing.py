"""Decides how a grown row ends: stop strings, text, finish reason."""

from __future__ import annotations

import math
from collections.abc import Sequence

from env.engine.decoding import STRIDE, DecodeBatch
from env.engine.jobs import Generated, Grown, Row
from env.engine.text import CheckpointTokenizer

_MARGIN = 4
"""Tokens decoded beyond what a stop string can span, for tokenizers that treat the first token specially."""


class Finisher:
    """Applies stop strings and turns tokens into text."""

    def __init__(self, tokenizer: CheckpointTokenizer) -> None:
        self._tokenizer = tokenizer

    def stopped(self, batch: DecodeBatch) -> list[int]:
        """Slots whose newest tokens complete a stop string."""
        slots: list[int] = []
        longest = 0
        for slot, row in enumerate(batch.rows):
            if row is None:
                continue
            if row.job.sampling.stop:
                slots.append(slot)
                longest = max(longest, *(len(stop) for stop in row.job.sampling.stop))
        if not slots:
            return []
        likely = self._holding_stop(batch, slots, STRIDE + longest + _MARGIN)
        return self._holding_stop(batch, likely, None)

    def report_progress(self, batch: DecodeBatch) -> None:
        """Tell those who asked how far their rows have grown; called after a harvest, when none has ended."""
        for slot, row in enumerate(batch.rows):
            if row is not None and row.job.progress is not None and not row.job.cancelled:
                row.job.progress(row.index, batch.tails([slot])[0])

    def _holding_stop(self, batch: DecodeBatch, slots: list[int], count: int | None) -> list[int]:
        if not slots:
            return []
        texts = self._tokenizer.decode(batch.tails(slots, count))
        rows = [batch.rows[slot] for slot in slots]
        return [
            slot
            for slot, row, text in zip(slots, rows, texts, strict=True)
            if row is not None and any(stop in text for stop in row.job.sampling.stop)
        ]

    def finish(self, grown: Sequence[Grown]) -> list[tuple[Row, Generated | None]]:
        """Final text, tokens and reason of each ended row; None where the model's numbers were not finite."""
        texts = self._tokenizer.decode([one.tokens for one in grown])
        return [(one.row, self._finish(one, text)) for one, text in zip(grown, texts, strict=True)]

    def _finish(self, grown: Grown, text: str) -> Generated | None:
        if not all(map(math.isfinite, grown.logprobs)):
            return None
        stops = [stop for stop in grown.row.job.sampling.stop if stop in text]
        if not stops:
            return Generated(grown.tokens, grown.logprobs, text, "stop" if grown.ended else "length")
        length = self._first_stop(grown.tokens, grown.row.job.sampling.stop)
        cut = self._tokenizer.decode([grown.tokens[:length]])[0]
        ends = [cut.find(stop) for stop in grown.row.job.sampling.stop if stop in cut]
        return Generated(grown.tokens[:length], grown.logprobs[:length], cut[: min(ends)], "stop")

    def _first_stop(self, tokens: Sequence[int], stops: Sequence[str]) -> int:
        """The fewest tokens whose text holds a stop string."""
        low, high = 1, len(tokens)
        while low < high:
            middle = (low + high) // 2
            text = self._tokenizer.decode([tokens[:middle]])[0]
            if any(stop in text for stop in stops):
                high = middle
            else:
                low = middle + 1
        return low
