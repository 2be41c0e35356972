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
from env.backends.waits import Span, Waits, covered, measured_waits, without
from env.bank import PromptKey, SampleBank, draw_key, score_key
from env.errors import ApportionError
from env.execution.allowance import Allowance
from env.execution.progress import MARKS, Mark, Progress, ProgressSink
from env.spans import span

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
            held.update(await self._ask(stage, verifier, missing, requests, backend.score, filled))
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
            drawn = await self._ask(stage, model, keys, requests, self._backends.backend(model).generate, filled)
            held.update({key: _joined(held.get(key, ()), draws) for key, draws in drawn.items()})
        filled.draws.update(held)

    async def _ask(
        self,
        stage: str,
        model: str,
        keys: list[PromptKey],
        requests: Sequence[AnyRequest],
        ask: Callable[[Sequence[AnyRequest]], AsyncIterator[Settled | Failed]],
        filled: Filled,
    ) -> Mapping[PromptKey, tuple[Draw, ...]]:
        """Send requests, all at once or as many as the allowance lets through at a time, and settle the answers.

        Returns:
            What the bank then holds of what came, or of everything asked.
        """
        with span("draws", stage=stage, model=model, requests=len(requests)) as watched:
            made, counted = await self._ask_in_groups(stage, model, keys, requests, ask, filled)
            drawn = [draw for draws in made.values() for draw in draws]
            watched.note(
                draws=len(drawn),
                prompt_tokens=sum(draws[0].prompt_tokens for draws in made.values() if draws),
                output_tokens=sum(draw.output_tokens for draw in drawn),
                failed=sum(key in filled.failures for key in keys),
            )
        if counted.new == counted.settled:
            return made
        # Another process settled one of these draws first, and the first one stays.
        return await asyncio.to_thread(self._bank.held, keys)

    async def _ask_in_groups(
        self,
        stage: str,
        model: str,
        keys: list[PromptKey],
        requests: Sequence[AnyRequest],
        ask: Callable[[Sequence[AnyRequest]], AsyncIterator[Settled | Failed]],
        filled: Filled,
    ) -> tuple[dict[PromptKey, tuple[Draw, ...]], _Counted]:
        backend = self._backends.backend(model)
        counted = _Counted(len(keys))
        made: dict[PromptKey, tuple[Draw, ...]] = {}
        sent = 0
        while sent < len(requests):
            count = await self._allowance.admit(model, requests[sent:])
            part, of_part = requests[sent : sent + count], keys[sent : sent + count]
            answers: dict[PromptKey, tuple[Draw, ...]] = {}
            try:
                async with asyncio.timeout(self._allowance.seconds_left):
                    outcomes = self._asked(partial(ask, part), len(part))
                    await self._settle(stage, model, backend, of_part, outcomes, filled, answers, counted)
            except TimeoutError:
                self._allowance.check()
                raise
            finally:
                await self._allowance.answered(model, part, answers.values())
            made.update(answers)
            sent += count
        return made, counted

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
        made: dict[PromptKey, tuple[Draw, ...]],
        counted: _Counted,
    ) -> None:
        """Store outcomes as they come, and charge the time in which the model answered."""
        started = flushed = time.monotonic()
        charged = 0.0
        buffer: dict[PromptKey, tuple[Draw, ...]] = {}
        waiting = 0

        async def flush() -> None:
            nonlocal buffer, waiting, flushed, charged
            if buffer:
                counted.new += await asyncio.to_thread(self._bank.settle, backend.identity, buffer)
            counted.settled += waiting
            waiting, buffer, flushed = 0, {}, time.monotonic()
            # A wait is known only when it has ended, so what was charged may turn out to be too much.
            busy = covered(without((started, flushed), waits.spans))
            self._allowance.timed(model, busy - charged)
            charged = busy
            self._progress(counted.progress(stage, model))
            self._allowance.check()

        try:
            with measured_waits() as waits:
                async for outcome in outcomes:
                    counted.done += 1
                    if isinstance(outcome, Failed):
                        filled.failures[keys[outcome.position]] = outcome.reason
                    if outcome.draws:
                        # A request that failed in part keeps what it drew: the next run asks for the rest only.
                        draws = tuple(replace(draw, origin=self._origin) for draw in outcome.draws)
                        buffer[keys[outcome.position]] = made[keys[outcome.position]] = draws
                        waiting += len(draws)
                    if waiting >= FLUSH_DRAWS or time.monotonic() - flushed > FLUSH_SECONDS:
                        await flush()
        except asyncio.CancelledError:
            # Another model's end, or the deadline's, ends this one too; what has come is paid for and kept.
            if buffer:
                self._bank.settle(backend.identity, buffer)
            raise
        self._share_time(self._timed(model, started, waits), made)
        await flush()

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


class _Counted:
    """How far the requests of one stage to one model have come, over all the groups they are sent in."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = time.monotonic()
        self._marks: deque[Mark] = deque([(0.0, 0)], MARKS)
        self.done = 0
        self.settled = 0
        self.new = 0
        """Of the settled draws, those that the bank did not hold yet."""

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
