"""Fills the bank: asks backends for exactly the draws that are missing and stores them as they come."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from env.backends import Backend, Draw, DrawRequest, Failed, Message, Sampling, ScoreRequest, Settled
from env.backends.pool import Backends
from env.backends.waits import Span, Waits, covered, measured_waits, without
from env.bank import PromptKey, SampleBank, draw_key, score_key
from env.errors import ApportionError
from env.execution.progress import MARKS, Mark, Progress, ProgressSink

FLUSH_DRAWS = 512
"""Draws kept in memory before they are settled, at most; what a kill can lose."""

FLUSH_SECONDS = 2.0


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

    def __init__(self, bank: SampleBank, backends: Backends, origin: str, progress: ProgressSink) -> None:
        self._bank = bank
        self._backends = backends
        self._origin = origin
        self._progress = progress
        self.seconds: dict[PromptKey, dict[int, float]] = {}
        """Of the draws made, by index: their share of the time their model was asked, by tokens generated. Models asked
        side by side slow each other down, and their times overlap. Waits for servers to load, and for the turns of
        others, are no part of it."""

        self.load_seconds: dict[str, float] = {}
        """By model: how long its calls waited for loads of servers that they caused."""

        self.asking: list[Span] = []
        """When models were asked."""

        self.waiting: list[Span] = []
        """When calls waited for servers."""

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
            outcomes = self._asked(lambda: backend.score(requests), len(requests))
            held.update(await self._settle(stage, verifier, backend, missing, outcomes, filled))
        filled.draws.update(held)
        return filled

    async def _fill_model(self, stage: str, model: str, wanted: Mapping[PromptKey, Need], filled: Filled) -> None:
        held = dict(await asyncio.to_thread(self._bank.held, list(wanted)))
        missing: list[tuple[PromptKey, DrawRequest]] = []
        for key, need in wanted.items():
            have = {draw.index for draw in held.get(key, ())}
            indices = tuple(i for i in range(need.samples) if i not in have)
            if indices:
                missing.append((key, DrawRequest(need.messages, need.sampling, indices)))
        if missing:
            # The most work first: a long request that is sent last leaves the server all but idle until it ends.
            # Equal ones keep their order, in which prompts with one beginning follow each other (prefix caches).
            missing.sort(key=lambda one: -len(one[1].indices) * one[1].sampling.max_tokens)
            keys, requests = [key for key, _ in missing], [request for _, request in missing]
            backend = self._backends.backend(model)
            outcomes = self._asked(lambda: backend.generate(requests), len(requests))
            drawn = await self._settle(stage, model, backend, keys, outcomes, filled)
            held.update({key: _joined(held.get(key, ()), draws) for key, draws in drawn.items()})
        filled.draws.update(held)

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
    ) -> Mapping[PromptKey, tuple[Draw, ...]]:
        """Store outcomes as they come; what the bank then holds of what came, or of everything asked."""
        started = flushed = time.monotonic()
        buffer: dict[PromptKey, tuple[Draw, ...]] = {}
        waiting = settled = done = new = 0
        made: dict[PromptKey, tuple[Draw, ...]] = {}
        marks: deque[Mark] = deque([(0.0, 0)], MARKS)

        async def flush() -> None:
            nonlocal buffer, waiting, settled, flushed, new
            if buffer:
                new += await asyncio.to_thread(self._bank.settle, backend.identity, buffer)
            settled, waiting, buffer, flushed = settled + waiting, 0, {}, time.monotonic()
            seconds = time.monotonic() - started
            marks.append((seconds, done))
            self._progress(Progress(stage, model, done, len(keys), settled, seconds, tuple(marks)))

        with measured_waits() as waits:
            async for outcome in outcomes:
                done += 1
                if isinstance(outcome, Failed):
                    filled.failures[keys[outcome.position]] = outcome.reason
                if outcome.draws:
                    # A request that failed in part keeps what it drew: the next run asks for the rest only.
                    draws = tuple(replace(draw, origin=self._origin) for draw in outcome.draws)
                    buffer[keys[outcome.position]] = made[keys[outcome.position]] = draws
                    waiting += len(draws)
                if waiting >= FLUSH_DRAWS or time.monotonic() - flushed > FLUSH_SECONDS:
                    await flush()
        self._share_time(self._timed(model, started, waits), made)
        await flush()
        if new == settled:
            return made
        # Another process settled one of these draws first, and the first one stays.
        return await asyncio.to_thread(self._bank.held, keys)

    def _timed(self, model: str, started: float, waits: Waits) -> float:
        """Seconds for which a model was asked since ``started``; what it waited for is entered apart."""
        asked = without((started, time.monotonic()), waits.spans)
        self.asking += asked
        self.waiting += waits.spans
        self.load_seconds[model] = self.load_seconds.get(model, 0.0) + waits.load_seconds
        return covered(asked)

    @property
    def idle_seconds(self) -> float:
        """Clock time in which calls waited for servers and no model was asked."""
        return covered([*self.asking, *self.waiting]) - covered(self.asking)

    def _share_time(self, elapsed: float, made: Mapping[PromptKey, Sequence[Draw]]) -> None:
        weights = {(key, draw.index): max(1, draw.output_tokens) for key, draws in made.items() for draw in draws}
        tokens = sum(weights.values())
        for (key, index), weight in weights.items():
            self.seconds.setdefault(key, {})[index] = elapsed * weight / tokens


def _joined(held: Sequence[Draw], drawn: Sequence[Draw]) -> tuple[Draw, ...]:
    """Draws of one prompt by index; those of the bank before those in memory."""
    return tuple(draw for _, draw in sorted(({d.index: d for d in (*drawn, *held)}).items()))


def key_of(backends: Backends, need: Need) -> PromptKey:
    """Content key of a prompt's draws."""
    return draw_key(backends.backend(need.model).identity, need.messages, need.sampling)


def score_key_of(backends: Backends, verifier: str, messages: tuple[Message, ...], partial: bool = False) -> PromptKey:
    """Content key of a verifier's score."""
    return score_key(backends.backend(verifier).identity, messages, partial)
