"""The in-process backend: the torch engine behind the backend interface."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from env.backends._base import Draw, DrawRequest, Failed, Message, ModelIdentity, ScoreRequest, Settled, continues
from env.engine.config import checkpoint_revision, read_config
from env.errors import ApportionError, BackendError

if TYPE_CHECKING:
    from env.engine.engine import Engine
    from env.engine.jobs import Generated, Job
    from env.engine.sharing import EngineLease
    from env.engine.text import Ending

_SLICE = 512
"""Requests tokenised at a time, so that decoding starts while later prompts are still being rendered."""


class TorchBackend:
    """Serves a checkpoint folder in this process.

    The checkpoint is loaded at the first call; backends of one (checkpoint, device) share one engine. Draw ``i`` of a
    prompt is decided by (prompt, sampling, i) alone. Prompts that do not fit the model's context come back `Failed`;
    where the context ends before ``max_tokens``, the draw ends there with reason ``length``.
    """

    def __init__(
        self,
        checkpoint: Path,
        device: str = "auto",
        *,
        name: str | None = None,
        dtype: str = "float32",
        max_rows: int = 512,
    ) -> None:
        """Check the checkpoint's config; nothing is loaded yet.

        Args:
            checkpoint: folder written by ``save_pretrained``.
            device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: CUDA where there is one.
            name: the model's name in its identity; the folder's name by default.
            dtype: ``float32``, or ``bfloat16`` on CUDA.
            max_rows: draws decoded at once.

        Raises:
            CheckpointError: the folder is no checkpoint that the engine serves.
        """
        self._checkpoint = Path(checkpoint)
        self._config = read_config(self._checkpoint)
        self._name = name or self._checkpoint.resolve().name
        self._device, self._dtype, self._max_rows = device, dtype, max_rows
        self._lease: EngineLease | None = None
        self._opening: asyncio.Task[EngineLease] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"TorchBackend({self._name!r}, checkpoint={str(self._checkpoint)!r}, device={self._device!r})"

    @cached_property
    def identity(self) -> ModelIdentity:
        """Name and content hash of the checkpoint (the files are read once)."""
        return ModelIdentity(self._name, checkpoint_revision(self._checkpoint))

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.generate`."""
        self._require("generate", "this checkpoint is a verifier: ask it for scores, not for draws")
        engine = await self._engine_or_reason()
        if isinstance(engine, str):
            for position in range(len(requests)):
                yield Failed(position, engine)
            return
        outcomes: asyncio.Queue[Settled | Failed] = asyncio.Queue()
        jobs: list[Job] = []
        feeding = asyncio.create_task(_feed(engine, requests, jobs, outcomes))
        try:
            for _ in requests:
                yield await outcomes.get()
        finally:
            feeding.cancel()
            for job in jobs:
                job.cancelled = True

    async def stream(self, request: DrawRequest, on_text: Callable[[str], None]) -> Settled | Failed:
        """See `StreamingBackend.stream`."""
        self._require("generate", "this checkpoint is a verifier: ask it for scores, not for draws")
        engine = await self._engine_or_reason()
        if isinstance(engine, str):
            return Failed(0, engine)
        return await _streamed(engine, request, on_text)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.score`."""
        self._require("score", "this checkpoint is no verifier (LlamaForSequenceClassification with num_labels = 1)")
        engine = await self._engine_or_reason()
        for start in range(0, len(requests), _SLICE):
            part = requests[start : start + _SLICE]
            if isinstance(engine, str):
                outcomes: list[Settled | Failed] = [Failed(start + n, engine) for n in range(len(part))]
            else:
                outcomes = await _score_part(engine, part, start)
            for outcome in outcomes:
                yield outcome

    async def close(self) -> None:
        """Give up this backend's share of the engine; later calls raise."""
        self._closed = True
        if self._opening is not None:
            with contextlib.suppress(ApportionError):
                self._lease = await self._opening
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await asyncio.to_thread(lease.release)

    def _require(self, task: str, otherwise: str) -> None:
        if self._closed:
            raise BackendError(f"the backend of {self._name} is closed; open a new one")
        if self._config.task != task:
            raise BackendError(f"{self._name}: {otherwise}")

    async def _engine_or_reason(self) -> Engine | str:
        """The engine, loaded by the first task that asks, or why there is none."""
        if self._lease is not None:
            return self._lease.engine
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        opening = self._opening
        try:
            self._lease = await asyncio.shield(opening)
            return self._lease.engine
        except ApportionError as error:
            return str(error)
        finally:
            if self._opening is opening and opening.done():
                self._opening = None

    async def _open(self) -> EngineLease:
        from env.engine.sharing import lease_engine

        return await asyncio.to_thread(lease_engine, self._checkpoint, self._device, self._dtype, self._max_rows)


async def _feed(
    engine: Engine,
    requests: Sequence[DrawRequest],
    jobs: list[Job],
    outcomes: asyncio.Queue[Settled | Failed],
) -> None:
    """Tokenise and submit the requests slice by slice; their outcomes go to the queue."""
    from env.engine.jobs import Job

    loop = asyncio.get_running_loop()
    positions: dict[int, int] = {}

    def settle(job: Job) -> None:
        outcome = _outcome(positions[id(job)], job)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(outcomes.put_nowait, outcome)

    for start in range(0, len(requests), _SLICE):
        part = requests[start : start + _SLICE]
        endings: list[Ending] = ["open" if continues(request.messages) else "reply" for request in part]
        encoded = await asyncio.to_thread(_encode, engine, [request.messages for request in part], endings)
        fresh = []
        for offset, (request, tokens) in enumerate(zip(part, encoded, strict=True)):
            if isinstance(tokens, str):
                outcomes.put_nowait(Failed(start + offset, tokens))
                continue
            partial = request.messages[-1].content if continues(request.messages) else ""
            job = Job(tokens, request.sampling, request.indices, partial=partial)
            positions[id(job)] = start + offset
            fresh.append(job)
        jobs.extend(fresh)
        try:
            engine.submit(fresh, settle)
        except BackendError as error:
            for job in fresh:
                outcomes.put_nowait(Failed(positions[id(job)], str(error)))


async def _streamed(engine: Engine, request: DrawRequest, on_text: Callable[[str], None]) -> Settled | Failed:
    from env.engine.finishing import job_texts
    from env.engine.jobs import Job
    from env.engine.streaming import settled_text

    loop = asyncio.get_running_loop()
    ending: Ending = "open" if continues(request.messages) else "reply"
    [tokens] = await asyncio.to_thread(_encode, engine, [request.messages], [ending])
    if isinstance(tokens, str):
        return Failed(0, tokens)
    events: asyncio.Queue[Sequence[int] | Job] = asyncio.Queue()

    def put(event: Sequence[int] | Job) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(events.put_nowait, event)

    partial = request.messages[-1].content if continues(request.messages) else ""
    job = Job(tokens, request.sampling, request.indices, partial=partial)
    job.progress = lambda _, grown: put(grown)
    told = ""
    try:
        engine.submit([job], put)
        while not isinstance(event := await events.get(), Job):
            text = settled_text(job_texts(engine.tokenizer, [job], [event])[0], request.sampling.stop)
            if len(text) > len(told):
                on_text(text[len(told) :])
                told = text
    except BackendError as error:
        return Failed(0, str(error))
    finally:
        job.cancelled = True
    outcome = _outcome(0, job)
    if isinstance(outcome, Settled) and (rest := outcome.draws[0].text[len(told) :]):
        on_text(rest)
    return outcome


def _outcome(position: int, job: Job) -> Settled | Failed:
    if job.failure is not None:
        return Failed(position, job.failure)
    pairs = zip(job.indices, job.answer(), strict=True)
    return Settled(position, tuple(_draw(index, len(job.tokens), generated) for index, generated in pairs))


def _draw(index: int, prompt_tokens: int, generated: Generated) -> Draw:
    return Draw(
        index=index,
        text=generated.text,
        finish_reason=generated.finish_reason,
        prompt_tokens=prompt_tokens,
        output_tokens=len(generated.tokens),
        logprob=sum(generated.logprobs),
    )


def _encode(engine: Engine, chats: Sequence[Sequence[Message]], endings: Sequence[Ending]) -> list[list[int] | str]:
    """Tokens of each conversation, or why it has none; one bad conversation does not spoil the others."""
    found: list[list[int] | str] = [""] * len(chats)
    for ending in dict.fromkeys(endings):
        places = [place for place, its in enumerate(endings) if its == ending]
        alike = [chats[place] for place in places]
        try:
            encoded: list[list[int] | str] = list(engine.tokenizer.encode_chats(alike, ending))
        except Exception:
            encoded = [_encode_one(engine, chat, ending) for chat in alike]
        for place, tokens in zip(places, encoded, strict=True):
            found[place] = tokens
    return found


def _encode_one(engine: Engine, chat: Sequence[Message], ending: Ending) -> list[int] | str:
    try:
        return engine.tokenizer.encode_chats([chat], ending)[0]
    except ApportionError as error:
        return str(error)
    except Exception as error:  # the contract: what cannot be asked is an outcome, whatever the tokenizer objects to
        return f"the messages cannot be tokenised: {type(error).__name__}: {error}"


async def _score_part(engine: Engine, part: Sequence[ScoreRequest], start: int) -> list[Settled | Failed]:
    endings: list[Ending] = ["open" if request.partial else "closed" for request in part]
    encoded = await asyncio.to_thread(_encode, engine, [request.messages for request in part], endings)
    longest = engine.config.max_positions
    outcomes: list[Settled | Failed] = []
    served: list[tuple[int, list[int]]] = []
    for position, tokens in enumerate(encoded, start):
        if isinstance(tokens, str):
            outcomes.append(Failed(position, tokens))
        elif not 0 < len(tokens) <= longest:
            reason = f"the candidate has {len(tokens)} tokens, the verifier takes 1 to {longest}"
            outcomes.append(Failed(position, reason))
        else:
            served.append((position, tokens))
    try:
        scores = await asyncio.wrap_future(engine.score([tokens for _, tokens in served]))
    except Exception as error:
        return [*outcomes, *(Failed(position, f"scoring failed: {error}") for position, _ in served)]
    for (position, tokens), value in zip(served, scores, strict=True):
        draw = Draw(0, "", "score", len(tokens), 0, score=value)
        outcomes.append(Settled(position, (draw,)))
    return outcomes
