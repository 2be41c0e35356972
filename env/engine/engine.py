"""The torch engine: one thread that owns a model and runs everything asked of it as one growing and shrinking batch."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from env.engine.config import read_config
from env.engine.decoding import DecodeBatch
from env.engine.finishing import Finisher
from env.engine.jobs import Generated, Job, Row
from env.engine.model import LlamaModel, Prefill
from env.engine.prefilling import prefill_groups, run_prefill
from env.engine.scoring import score_tokens
from env.engine.text import CheckpointTokenizer
from env.engine.threads import limit_own_threads, useful_threads
from env.engine.weights import load_weights
from env.errors import BackendError, CheckpointError

PREFILL_TOKENS = 4096
"""Padded prompt tokens run at once: enough to fill the cores, few enough to stay in cache."""


class Engine:
    """Serves one checkpoint from one process.

    Thread safe: any thread may submit; one dedicated thread computes, so that an event loop is never blocked. Jobs that
    arrive while others run join their batch. A draw's text depends on (prompt, sampling, index) alone, never on what
    shares its batch. It uses as many threads as torch, or one where a model's operations are too small to split.
    """

    def __init__(
        self, checkpoint: Path, device: str = "auto", dtype: torch.dtype = torch.float32, max_rows: int = 512
    ) -> None:
        """Load a checkpoint (blocking).

        Args:
            checkpoint: folder written by ``save_pretrained``.
            device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: CUDA where there is one.
            dtype: of weights and cache; bfloat16 is for CUDA.
            max_rows: draws decoded at once.

        Raises:
            CheckpointError: the folder is no checkpoint that the engine serves.
        """
        self.config = read_config(checkpoint)
        self.tokenizer = CheckpointTokenizer(checkpoint)
        where = resolve_device(device)
        threads = useful_threads(self.config)
        self._model = LlamaModel(self.config, load_weights(checkpoint, self.config, where, dtype))
        self._batch = DecodeBatch(self._model, self.config.eos_token_ids, max_rows)
        self._finisher = Finisher(self.tokenizer)
        self._executor = ThreadPoolExecutor(1, f"engine-{checkpoint.name}", limit_own_threads, (threads,))
        self._lock = threading.Lock()
        self._arrived: deque[Job] = deque()
        self._running = False
        self._closed = False
        self._waiting: deque[Job] = deque()
        self._leftovers: deque[_Leftover] = deque()

    async def generate(self, jobs: Sequence[Job]) -> AsyncIterator[Job]:
        """Run jobs and yield each as it is done; abandoning the iterator drops what has not finished."""
        loop = asyncio.get_running_loop()
        done: asyncio.Queue[Job] = asyncio.Queue()

        def settle(job: Job) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.put_nowait, job)

        try:
            self.submit(jobs, settle)
            for _ in jobs:
                yield await done.get()
        finally:
            for job in jobs:
                job.cancelled = True

    def run(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Run jobs and yield each as it is done, for callers without an event loop."""
        done: queue.SimpleQueue[Job] = queue.SimpleQueue()
        try:
            self.submit(jobs, done.put)
            for _ in jobs:
                yield done.get()
        finally:
            for job in jobs:
                job.cancelled = True

    def submit(self, jobs: Sequence[Job], settle: Callable[[Job], None]) -> None:
        """Queue jobs; ``settle`` is called with each, on the engine's thread, once it is done or has failed.

        Raises:
            BackendError: the engine is closed, or the checkpoint is a verifier.
        """
        if self.config.task != "generate":
            raise BackendError("this checkpoint is a verifier: ask it for scores, not for draws")
        for job in jobs:
            job.settle = settle
        with self._lock:
            self._require_open()
            self._arrived.extend(jobs)
            if not self._running:
                self._running = True
                self._executor.submit(self._drain)

    def score(self, prompts: Sequence[Sequence[int]]) -> Future[list[float]]:
        """Verifier scores in [0, 1] of token sequences, in their order.

        Raises:
            BackendError: the engine is closed, or the checkpoint is no verifier.
        """
        if self.config.task != "score":
            raise BackendError("this checkpoint is no verifier (LlamaForSequenceClassification with num_labels = 1)")
        with self._lock:
            self._require_open()
            return self._executor.submit(score_tokens, self._model, list(prompts), PREFILL_TOKENS)

    def close(self) -> None:
        """Stop after the step under way, fail what is unfinished and free the memory; later calls raise."""
        with self._lock:
            self._closed = True
        self._executor.shutdown(wait=True)
        self._batch.clear()

    def _require_open(self) -> None:
        if self._closed:
            raise BackendError("this engine is closed; open a new one")

    def _drain(self) -> None:
        """Compute until nothing is left to do."""
        with torch.inference_mode():
            while True:
                with self._lock:
                    self._waiting.extend(self._arrived)
                    self._arrived.clear()
                    idle = not (self._waiting or self._leftovers or self._batch.active)
                    if idle:
                        self._batch.clear()
                        self._running = False
                        return
                try:
                    if self._closed:
                        raise BackendError("the engine was closed")
                    self._turn()
                except Exception as error:
                    self._fail_all(f"{type(error).__name__}: {error}")

    def _turn(self) -> None:
        """Admit what fits, grow every row a little, hand out what ended."""
        self._admit()
        if not self._batch.active:
            return
        self._batch.advance()
        stopped = self._finisher.stopped(self._batch)
        grown = self._batch.harvest(stopped, waiting=bool(self._waiting or self._leftovers))
        for row, generated in self._finisher.finish(grown):
            self._settle(row, generated)
        self._finisher.report_progress(self._batch)

    def _admit(self) -> None:
        room = self._batch.room
        if room <= 0 or (self._batch.active and room < self._batch.active // 8):
            return
        while self._leftovers and room > 0:
            room -= self._admit_leftover(room)
        alike: dict[tuple[int, ...], list[Job]] = {}
        for job in self._take(room):
            alike.setdefault(tuple(job.tokens), []).append(job)
        if not alike:
            return
        prompts = list(alike)
        rows = sum(len(job.row_indices) for jobs in alike.values() for job in jobs)
        self._batch.reserve(min(rows, self._batch.room), max(map(len, prompts)))
        for group in prefill_groups([len(prompt) for prompt in prompts], PREFILL_TOKENS):
            self._admit_group([prompts[number] for number in group], [alike[prompts[number]] for number in group])

    def _take(self, room: int) -> list[Job]:
        """The waiting jobs whose rows fit; one alone may fit only in part."""
        taken: list[Job] = []
        while room > 0 and self._waiting:
            job = self._waiting[0]
            if taken and len(job.row_indices) > room:
                break
            self._waiting.popleft()
            job.failure = job.objection(self.config.max_positions, self.config.vocab_size)
            if job.failure or not job.indices:
                self._report(job)
            elif not job.cancelled:
                taken.append(job)
                room -= len(job.row_indices)
        return taken

    def _admit_group(self, prompts: list[tuple[int, ...]], askers: list[list[Job]]) -> None:
        """Prefill distinct prompts and admit the rows of all jobs that ask them."""
        lengths = [len(prompt) for prompt in prompts]
        prefill = run_prefill(self._model, prompts)
        members: list[tuple[int, Row]] = []
        for number, jobs in enumerate(askers):
            rows = [row for job in jobs for row in self._rows(job)]
            fits = self._batch.room - len(members)
            members.extend((number, row) for row in rows[:fits])
            if rows[fits:]:
                prompt = _one_prompt(prefill, number, lengths[number])
                self._leftovers.append(_Leftover(prompt, lengths[number], rows[fits:]))
        if members:
            self._batch.admit(prefill, lengths, members)

    def _admit_leftover(self, room: int) -> int:
        leftover = self._leftovers[0]
        rows, leftover.rows = leftover.rows[:room], leftover.rows[room:]
        if not leftover.rows:
            self._leftovers.popleft()
        self._batch.admit(leftover.prefill, [leftover.length], [(0, row) for row in rows])
        return len(rows)

    def _rows(self, job: Job) -> list[Row]:
        limit = job.limit(self.config.max_positions)
        return [Row(job, index, limit, key) for index, key in zip(job.row_indices, job.row_keys(), strict=True)]

    def _settle(self, row: Row, generated: Generated | None) -> None:
        job = row.job
        if job.failure is not None:
            return
        if generated is None:
            job.failure = "the model produced numbers that are not finite; its weights are broken"
            job.cancelled = True
            self._report(job)
            return
        job.generated[row.index] = generated
        if len(job.generated) == len(job.row_indices):
            self._report(job)

    def _report(self, job: Job) -> None:
        with contextlib.suppress(Exception):
            job.settle(job)

    def _fail_all(self, reason: str) -> None:
        jobs = {id(row.job): row.job for row in self._batch.rows if row is not None}
        jobs.update((id(row.job), row.job) for leftover in self._leftovers for row in leftover.rows)
        jobs.update((id(job), job) for job in self._waiting)
        self._waiting.clear()
        self._leftovers.clear()
        self._batch.clear()
        for job in jobs.values():
            if job.failure is None:
                job.failure = reason
                self._report(job)


class _Leftover:
    """Rows of a prefilled prompt that found no place yet."""

    def __init__(self, prefill: Prefill, length: int, rows: list[Row]) -> None:
        self.prefill = prefill
        self.length = length
        self.rows = rows


def _one_prompt(prefill: Prefill, number: int, length: int) -> Prefill:
    kept = tuple(layer[number : number + 1, :length].clone() for layer in prefill.keys_values)
    return Prefill(prefill.last_hidden[number : number + 1].clone(), kept)


def resolve_device(device: str) -> torch.device:
    """The torch device of a name; ``auto`` is CUDA where there is one.

    Raises:
        CheckpointError: the device does not exist here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise CheckpointError(f"unknown device {device!r}; use cpu, cuda, cuda:N or auto") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"device {device!r} asked for, but torch sees no CUDA here; use cpu or auto")
    return where
