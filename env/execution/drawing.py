"""Fills the bank: asks backends for exactly the draws that are missing and stores them as they come."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from env.backends import Backend, Draw, DrawRequest, Failed, Message, Sampling, ScoreRequest, Settled
from env.backends.pool import Backends
from env.bank import PromptKey, SampleBank, draw_key, score_key
from env.errors import ApportionError
from env.execution.allowance import Allowance
from env.execution.progress import MARKS, Mark, Progress, ProgressSink

FLUSH_DRAWS = 512
"""Draws kept in memory before they are settled, at most; what a kill can lose."""

FLUSH_SECONDS = 2.0

AnyRequest = TypeVar("AnyRequest", DrawRequest, ScoreRequest)


@dataclass
class Need:
    """Draws one prompt must have."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    samples: int
    """Indices 0..samples-1 are wanted."""


@dataclass
class Filled:
    """What the bank holds after filling."""

    draws: dict[PromptKey, tuple[Draw, ...]] = field(default_factory=dict)
    failures: dict[PromptKey, str] = field(default_factory=dict)
    """Prompts with a failed call, and why."""


class Drawing:
    """Draws into a bank on behalf of one batch."""

    def __init__(
        self,
        bank: SampleBank,
        backends: Backends,
        origin: str,
        progress: ProgressSink,
        allowance: Allowance | None = None,
    ) -> None:
        self._bank = bank
        self._backends = backends
        self._origin = origin
        self._progress = progress
        self._allowance = allowance or Allowance()
        self.seconds: dict[PromptKey, dict[int, float]] = {}
        """Of the draws made, by index: their share of the time their model was asked, by tokens generated. Models asked
        side by side slow each other down, and their times overlap."""

    async def fill(self, stage: str, needs: Mapping[PromptKey, Need]) -> Filled:
        """Make the bank hold the wanted draws, model by model side by side.

        Args:
            stage: the stage's name, for progress.
            needs: wanted draws by content key.
        """
        by_model: dict[str, dict[PromptKey, Need]] = {}
        for key, need in needs.items():
            by_model.setdefault(need.model, {})[key] = need
        filled = Filled()
        try:
            async with asyncio.TaskGroup() as group:
                for model, wanted in sorted(by_model.items()):
                    group.create_task(self._fill_model(stage, model, wanted, filled))
        except BaseExceptionGroup as group_error:
            # One model's failure stops the others; callers catch plain exceptions, such as a cancelled study.
            raise group_error.exceptions[0] from None
        return filled

    async def fill_scores(
        self, stage: str, verifier: str, candidates: Mapping[PromptKey, tuple[Message, ...]], partial: bool = False
    ) -> Filled:
        """Make the bank hold a verifier's score of each candidate.

        Args:
            stage: the stage's name, for progress.
            verifier: the model that scores.
            candidates: messages that end with the candidate, by the score's key.
            partial: the candidates are answers so far, to be judged as such.
        """
        filled = Filled()
        held = dict(await asyncio.to_thread(self._bank.held, list(candidates)))
        missing = [key for key in candidates if key not in held]
        backend = self._backends.backend(verifier)
        requests = [ScoreRequest(candidates[key], partial) for key in missing]
        if requests:
            await self._ask(stage, verifier, missing, requests, backend.score, filled)
            held.update(await asyncio.to_thread(self._bank.held, missing))
        filled.draws.update(held)
        return filled

    async def _fill_model(self, stage: str, model: str, wanted: Mapping[PromptKey, Need], filled: Filled) -> None:
        held = dict(await asyncio.to_thread(self._bank.held, list(wanted)))
        keys: list[PromptKey] = []
        requests: list[DrawRequest] = []
        for key, need in wanted.items():
            have = {draw.index for draw in held.get(key, ())}
            indices = tuple(i for i in range(need.samples) if i not in have)
            if indices:
                keys.append(key)
                requests.append(DrawRequest(need.messages, need.sampling, indices))
        if requests:
            await self._ask(stage, model, keys, requests, self._backends.backend(model).generate, filled)
            # Read back rather than trust memory: another process may have settled the same draw first.
            held.update(await asyncio.to_thread(self._bank.held, keys))
        filled.draws.update(held)

    async def _ask(
        self,
        stage: str,
        model: str,
        keys: list[PromptKey],
        requests: Sequence[AnyRequest],
        ask: Callable[[Sequence[AnyRequest]], AsyncIterator[Settled | Failed]],
        filled: Filled,
    ) -> None:
        """Send requests, all at once or as many as the allowance lets through at a time, and settle the answers."""
        backend = self._backends.backend(model)
        counted = _Counted(len(keys))
        sent = 0
        while sent < len(requests):
            count = await self._allowance.admit(model, requests[sent:])
            part, of_part = requests[sent : sent + count], keys[sent : sent + count]
            answers: dict[PromptKey, list[Draw]] = {}
            try:
                async with asyncio.timeout(self._allowance.seconds_left):
                    outcomes = self._asked(partial(ask, part), len(part))
                    await self._settle(stage, model, backend, of_part, outcomes, filled, answers, counted)
            except TimeoutError:
                self._allowance.check()
                raise
            finally:
                await self._allowance.answered(model, part, answers.values())
            sent += count

    async def _asked(
        self, ask: Callable[[], AsyncIterator[Settled | Failed]], count: int
    ) -> AsyncIterator[Settled | Failed]:
        """A backend's outcomes; one that cannot even start fails all its requests."""
        answered: set[int] = set()
        try:
            async for outcome in ask():
                answered.add(outcome.position)
                yield outcome
        except ApportionError as error:
            for position in range(count):
                if position not in answered:
                    yield Failed(position, str(error))

    async def _settle(
        self,
        stage: str,
        model: str,
        backend: Backend,
        keys: list[PromptKey],
        outcomes: AsyncIterator[Settled | Failed],
        filled: Filled,
        answers: dict[PromptKey, list[Draw]],
        counted: _Counted,
    ) -> None:
        started = flushed = time.monotonic()
        charged = 0.0
        loaded = getattr(backend, "load_seconds", 0.0)
        buffer: dict[PromptKey, list[Draw]] = {}
        waiting = 0
        made: list[tuple[PromptKey, int, int]] = []

        def busy_seconds() -> float:
            """Time since the start; while a server loads a model it answers nothing, and that is no inference."""
            return max(0.0, time.monotonic() - started - (getattr(backend, "load_seconds", 0.0) - loaded))

        async def flush() -> None:
            nonlocal buffer, waiting, flushed, charged
            if buffer:
                await asyncio.to_thread(self._bank.settle, backend.identity, buffer)
            counted.settled += waiting
            waiting, buffer, flushed = 0, {}, time.monotonic()
            busy = busy_seconds()
            self._allowance.timed(model, busy - charged)
            charged = busy
            self._progress(counted.progress(stage, model))
            self._allowance.check()

        try:
            async for outcome in outcomes:
                counted.done += 1
                if isinstance(outcome, Failed):
                    filled.failures[keys[outcome.position]] = outcome.reason
                if outcome.draws:
                    # A request that failed in part keeps what it drew: the next run asks for the rest only.
                    draws = [replace(draw, origin=self._origin) for draw in outcome.draws]
                    buffer.setdefault(keys[outcome.position], []).extend(draws)
                    answers.setdefault(keys[outcome.position], []).extend(draws)
                    made += [(keys[outcome.position], draw.index, max(1, draw.output_tokens)) for draw in draws]
                    waiting += len(draws)
                if waiting >= FLUSH_DRAWS or time.monotonic() - flushed > FLUSH_SECONDS:
                    await flush()
        except asyncio.CancelledError:
            # Another model's end, or the deadline's, ends this one too; what has come is paid for and kept.
            if buffer:
                self._bank.settle(backend.identity, buffer)
            raise
        elapsed, tokens = busy_seconds(), sum(weight for *_, weight in made)
        for key, index, weight in made:
            self.seconds.setdefault(key, {})[index] = elapsed * weight / tokens
        await flush()


class _Counted:
    """How far the requests of one stage to one model have come, over all the groups they are sent in."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = time.monotonic()
        self._marks: deque[Mark] = deque([(0.0, 0)], MARKS)
        self.done = 0
        self.settled = 0

    def progress(self, stage: str, model: str) -> Progress:
        """Now, as an event."""
        seconds = time.monotonic() - self._started
        self._marks.append((seconds, self.done))
        return Progress(stage, model, self.done, self._total, self.settled, seconds, tuple(self._marks))


def key_of(backends: Backends, need: Need) -> PromptKey:
    """Content key of a prompt's draws."""
    return draw_key(backends.backend(need.model).identity, need.messages, need.sampling)


def score_key_of(backends: Backends, verifier: str, messages: tuple[Message, ...], partial: bool = False) -> PromptKey:
    """Content key of a verifier's score."""
    return score_key(backends.backend(verifier).identity, messages, partial)
