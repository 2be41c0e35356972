"""Streams draws while they grow: text is sent once it can no longer be taken back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from env.engine.engine import Engine
from env.engine.finishing import job_texts
from env.engine.jobs import Job
from env.engine.replies import ReplyShape, error_body

_INCOMPLETE = "\ufffd"
"""What tokenizers decode half a character to."""

_Growth = tuple[int, int, Sequence[int]]
"""Place of the job, draw index, tokens so far."""


async def stream_jobs(engine: Engine, jobs: Sequence[Job], shape: ReplyShape, with_usage: bool) -> AsyncIterator[str]:
    """The data of each server-sent event, ``[DONE]`` last.

    Closing the iterator drops what has not finished.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[_Growth | Job] = asyncio.Queue()

    def put(event: _Growth | Job) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(events.put_nowait, event)

    for place, job in enumerate(jobs):
        job.progress = _reporter(place, put)
    stream = _Stream(engine, jobs, shape)
    unfinished = len(jobs)
    try:
        engine.submit(jobs, put)
        while unfinished:
            event = await events.get()
            if not isinstance(event, Job):
                for piece in stream.grown(*event):
                    yield piece
                continue
            unfinished -= 1
            if event.failure is not None:
                yield json.dumps(error_body(event.failure, 500))
                break
            for piece in stream.finished(event):
                yield piece
        else:
            if with_usage:
                yield json.dumps(shape.usage_chunk(jobs))
        yield "[DONE]"
    finally:
        for job in jobs:
            job.cancelled = True


class _Stream:
    """What has been sent of each choice."""

    def __init__(self, engine: Engine, jobs: Sequence[Job], shape: ReplyShape) -> None:
        self._tokenizer = engine.tokenizer
        self._jobs = jobs
        self._shape = shape
        self._sent: dict[int, str] = {}

    def grown(self, place: int, index: int, tokens: Sequence[int]) -> Iterator[str]:
        """New text of a draw under way."""
        job = self._jobs[place]
        text = settled_text(job_texts(self._tokenizer, [job], [tokens])[0], job.sampling.stop)
        number = self._first_choice(place) + job.indices.index(index)
        sent = self._sent.get(number, "")
        if len(text) > len(sent):
            yield json.dumps(self._shape.chunk(number, text[len(sent) :], role=number not in self._sent))
            self._sent[number] = text

    def finished(self, job: Job) -> Iterator[str]:
        """The rest of every choice of a job, each with how it ended."""
        place = next(number for number, one in enumerate(self._jobs) if one is job)
        for number, generated in enumerate(job.answer(), self._first_choice(place)):
            rest = generated.text[len(self._sent.get(number, "")) :]
            role = number not in self._sent
            yield json.dumps(self._shape.chunk(number, rest, role, generated.finish_reason, generated))

    def _first_choice(self, place: int) -> int:
        return sum(len(job.indices) for job in self._jobs[:place])


def _reporter(place: int, put: Callable[[_Growth], None]) -> Callable[[int, Sequence[int]], None]:
    return lambda index, tokens: put((place, index, tokens))


def settled_text(text: str, stops: Sequence[str]) -> str:
    """The part of a growing text that more tokens cannot change."""
    held = max((_overlap(text, stop) for stop in stops), default=0)
    return text[: len(text) - held].rstrip(_INCOMPLETE)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
