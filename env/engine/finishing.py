"""Decides how a grown row ends: stop strings, text, finish reason."""

from __future__ import annotations

import math
from collections.abc import Sequence

from env.engine.decoding import STRIDE, DecodeBatch
from env.engine.jobs import Generated, Grown, Job, Row
from env.engine.text import CheckpointTokenizer

_MARGIN = 4
"""Tokens decoded beyond what a stop string can span, for tokenizers that treat the first token specially."""

_CONTEXT = 8
"""Tokens of a partial answer decoded before its continuation, so that the white space between them is not lost."""


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
        rows = [batch.rows[slot] for slot in slots]
        jobs = [row.job for row in rows if row is not None]
        texts = job_texts(self._tokenizer, jobs, batch.tails(slots, count))
        return [
            slot
            for slot, row, text in zip(slots, rows, texts, strict=True)
            if row is not None and any(stop in text for stop in row.job.sampling.stop)
        ]

    def finish(self, grown: Sequence[Grown]) -> list[tuple[Row, Generated | None]]:
        """Final text, tokens and reason of each ended row; None where the model's numbers were not finite."""
        texts = job_texts(self._tokenizer, [one.row.job for one in grown], [one.tokens for one in grown])
        return [(one.row, self._finish(one, text)) for one, text in zip(grown, texts, strict=True)]

    def _finish(self, grown: Grown, text: str) -> Generated | None:
        if not all(map(math.isfinite, grown.logprobs)):
            return None
        sampling = grown.row.job.sampling
        if not any(stop in text for stop in sampling.stop):
            return Generated(grown.tokens, grown.logprobs, text, "stop" if grown.ended else "length")
        length = self._first_stop(grown.row.job, grown.tokens)
        [cut] = job_texts(self._tokenizer, [grown.row.job], [grown.tokens[:length]])
        begin, stop = min((cut.find(stop), stop) for stop in sampling.stop if stop in cut)
        kept = cut[: begin + len(stop)] if sampling.include_stop else cut[:begin]
        return Generated(grown.tokens[:length], grown.logprobs[:length], kept, "stop", stop)

    def _first_stop(self, job: Job, tokens: Sequence[int]) -> int:
        """The fewest tokens whose text holds a stop string."""
        low, high = 1, len(tokens)
        while low < high:
            middle = (low + high) // 2
            [text] = job_texts(self._tokenizer, [job], [tokens[:middle]])
            if any(stop in text for stop in job.sampling.stop):
                high = middle
            else:
                low = middle + 1
        return low


def job_texts(tokenizer: CheckpointTokenizer, jobs: Sequence[Job], tokens: Sequence[Sequence[int]]) -> list[str]:
    """Text of generated tokens, one row for each job; continuations read on from their partial answer.

    White space that the partial answer ends with and its tokens do not keep is not repeated.
    """
    fresh = [number for number, job in enumerate(jobs) if not job.partial]
    texts = dict(zip(fresh, tokenizer.decode([tokens[number] for number in fresh]), strict=True)) if fresh else {}
    for number, job in enumerate(jobs):
        if number in texts:
            continue
        context = job.tokens[-_CONTEXT:]
        [text] = tokenizer.decode_behind(context, [tokens[number]])
        space = job.partial[len(job.partial.rstrip()) :]
        if space and not tokenizer.decode([context])[0].endswith(space):
            text = text.removeprefix(space)
        texts[number] = text
    return [texts[number] for number in range(len(jobs))]
