"""Runs batches of allocations: stage by stage for all of them together, so that shared prefixes are drawn once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from env.allocation import Allocation, StageSetting
from env.backends import Draw, Message, Sampling
from env.backends.pool import Backends
from env.bank import PromptKey, SampleBank
from env.costs import CostOptions, PlanCost
from env.errors import TemplateError
from env.execution.drawing import Drawing, Filled, Need, key_of, score_key_of
from env.execution.estimates import Estimator, answer_variable
from env.execution.evidence import ExampleEvidence, Spend, StageOutcome, TrialResult
from env.execution.progress import ProgressSink, no_progress
from env.spec.pipeline import PipelineSpec, StageSpec
from env.spec.study import CostUnit
from env.strategies import STRATEGIES, Candidate
from env.tasks.example import Example, JsonValue
from env.tasks.metrics import metric_of
from env.tasks.parsers import canonical, from_canonical, parser_of
from env.tasks.prompts import render


@dataclass
class Path:
    """One allocation on one example while it runs: what its stages delivered so far."""

    allocation: Allocation
    example: Example
    variables: dict[str, JsonValue]
    keys: list[PromptKey] = field(default_factory=list)
    outcomes: list[StageOutcome] = field(default_factory=list)
    cost: float = 0.0
    failure: str | None = None


class Environment:
    """Executes allocations of one pipeline on examples, over a bank and backends."""

    def __init__(
        self,
        pipeline: PipelineSpec,
        unit: CostUnit,
        bank: SampleBank,
        backends: Backends,
        seed: int = 0,
        options: CostOptions | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.cost = PlanCost(pipeline, unit, options)
        self._bank = bank
        self._backends = backends
        self._seed = seed
        self._seconds: dict[PromptKey, dict[int, float]] = {}
        """Time of every draw this environment made, so that a later trial that reuses it knows what it took."""
        self._metric = metric_of(pipeline.metric)
        self._parsers = {stage.name: parser_of(stage.parser) for stage in pipeline.stages}

    async def run_batch(
        self,
        allocations: Sequence[Allocation],
        examples: Sequence[Example],
        origin: str = "",
        progress: ProgressSink = no_progress,
    ) -> list[TrialResult]:
        """Evaluate allocations on examples.

        Running the same batch again draws nothing that is held, and gives the same result.

        Args:
            allocations: each valid for the pipeline.
            examples: the examples, the same for all.
            origin: names this batch; draws it causes carry it.
            progress: told after each stored chunk; raising from it stops the batch.

        Returns:
            One result per allocation, in order. Failed calls, and prompts that cannot be rendered from an upstream
            answer, fail their examples with the reason.
        """
        started = time.monotonic()
        drawing = Drawing(self._bank, self._backends, origin, progress)
        batch = _Batch(
            [Path(allocation, example, dict(example.fields)) for allocation in allocations for example in examples]
        )
        for stage in self.pipeline.stages:
            await self._run_stage(stage, batch, drawing)
        # Estimation is plain computation on up to thousands of examples: keep it off the event loop.
        return await asyncio.to_thread(self._results, allocations, batch, origin, started)

    async def _run_stage(self, stage: StageSpec, batch: _Batch, drawing: Drawing) -> None:
        needs: dict[PromptKey, Need] = {}
        alive = [path for path in batch.paths if path.failure is None]
        for path in alive:
            setting = path.allocation[stage.name]
            try:
                need = self.need(stage, setting.model, setting.samples, path.variables)
            except TemplateError as error:
                # An upstream answer the template cannot digest, such as an index out of range, ends this path only.
                path.failure = str(error)
                continue
            key = key_of(self._backends, need)
            path.keys.append(key)
            known = needs.setdefault(key, need)
            known.samples = max(known.samples, setting.samples)
        filled = await drawing.fill(stage.name, needs)
        batch.take(filled)
        self._seconds_taken(filled)
        for key, draws in filled.draws.items():
            batch.candidates[stage.name, key] = self._read(stage, draws)
        alive = [path for path in alive if path.failure is None]
        await self._score(stage, alive, needs, batch, drawing)
        for path in alive:
            self._advance(stage, path, batch)

    def need(self, stage: StageSpec, model: str, samples: int, variables: Mapping[str, JsonValue]) -> Need:
        """The draws a stage asks for, its prompt rendered.

        Raises:
            TemplateError: the template fails on these variables.
        """
        try:
            messages = tuple(Message(m.role, render(m.template, variables)) for m in stage.prompt)
        except TemplateError as error:
            raise TemplateError(f"stage {stage.name}: {error}") from error
        sampling = Sampling(stage.temperature, stage.top_p, stage.max_tokens, stage.stop, self._seed)
        return Need(model, messages, sampling, samples)

    def _read(self, stage: StageSpec, draws: Sequence[Draw]) -> tuple[Candidate, ...]:
        parse = self._parsers[stage.name]
        return tuple(Candidate(canonical(parse(draw.text))) for draw in draws)

    async def _score(
        self, stage: StageSpec, paths: Sequence[Path], needs: Mapping[PromptKey, Need], batch: _Batch, drawing: Drawing
    ) -> None:
        """Add verifier scores to the candidates of prompts that a scoring strategy uses."""
        wanted = dict.fromkeys(
            path.keys[-1] for path in paths if STRATEGIES[path.allocation[stage.name].strategy].needs_scores
        )
        if not wanted or stage.verifier is None:
            return
        messages: dict[PromptKey, tuple[Message, ...]] = {}
        score_keys: dict[PromptKey, list[PromptKey]] = {}
        for key in wanted:
            texts = [draw.text for draw in batch.filled.draws.get(key, ())]
            judged = [(*needs[key].messages, Message("assistant", text)) for text in texts]
            score_keys[key] = [score_key_of(self._backends, stage.verifier, m) for m in judged]
            messages.update(zip(score_keys[key], judged, strict=True))
        scored = await drawing.fill_scores(stage.name, stage.verifier, messages)
        self._seconds_taken(scored)
        batch.score_keys.update({(stage.name, key): keys for key, keys in score_keys.items()})
        for key, keys in score_keys.items():
            failure = next((scored.failures[k] for k in keys if k in scored.failures), None)
            if failure is not None:
                batch.filled.failures[key] = f"verifier: {failure}"
                continue
            plain = batch.candidates[stage.name, key]
            batch.candidates[stage.name, key] = tuple(
                Candidate(c.answer, scored.draws[k][0].score) for c, k in zip(plain, keys, strict=True)
            )

    def _advance(self, stage: StageSpec, path: Path, batch: _Batch) -> None:
        setting, key = path.allocation[stage.name], path.keys[-1]
        draws = batch.filled.draws.get(key, ())
        first = draws[: setting.samples]
        if len(first) < setting.samples or any(d.index != i for i, d in enumerate(first)):
            missing = batch.filled.failures.get(key, "the model gave fewer draws than asked for")
            path.failure = f"{stage.name}: {missing}"
            return
        if setting.strategy == "best_of_n" and key in batch.filled.failures:
            path.failure = f"{stage.name}: {batch.filled.failures[key]}"
            return
        candidates = batch.candidates[stage.name, key]
        answer = STRATEGIES[setting.strategy].choose(candidates[: setting.samples])
        outputs = [draw.output_tokens for draw in first]
        path.cost += self.cost.measured(stage, setting, first[0].prompt_tokens, outputs)
        path.outcomes.append(
            StageOutcome(
                stage.name,
                answer,
                key,
                setting.samples,
                len(draws),
                first[0].prompt_tokens,
                sum(outputs),
                self._seconds_of(stage, setting, key, batch),
            )
        )
        path.variables[stage.name] = answer_variable(stage, answer)

    def _seconds_taken(self, filled: Filled) -> None:
        for key, seconds in filled.seconds.items():
            self._seconds.setdefault(key, {}).update(seconds)

    def _seconds_of(self, stage: StageSpec, setting: StageSetting, key: PromptKey, batch: _Batch) -> float | None:
        """Time of a setting's draws and of the verifier's passes over them; None where one is not known."""
        parts = [(key, i) for i in range(setting.samples)]
        if STRATEGIES[setting.strategy].needs_scores:
            parts += [(score_key, 0) for score_key in batch.score_keys.get((stage.name, key), ())[: setting.samples]]
        known = [self._seconds[k][i] for k, i in parts if i in self._seconds.get(k, ())]
        return sum(known) if len(known) == len(parts) else None

    def _results(
        self, allocations: Sequence[Allocation], batch: _Batch, origin: str, started: float
    ) -> list[TrialResult]:
        estimator = Estimator(self, batch.candidates, self._backends)
        results: list[TrialResult] = []
        claimed: set[tuple[PromptKey, int]] = set()
        per_allocation = len(batch.paths) // max(1, len(allocations))
        for position, allocation in enumerate(allocations):
            paths = batch.paths[position * per_allocation : (position + 1) * per_allocation]
            evidence = tuple(self._evidence(path, estimator) for path in paths)
            scored = [e.cost for e in evidence if e.status == "scored"]
            results.append(
                TrialResult(
                    allocation,
                    evidence,
                    self.cost.allocation(allocation),
                    sum(scored) / len(scored) if scored else None,
                    self._spend(allocation, paths, batch, origin, claimed, started, len(allocations)),
                )
            )
        return results

    def _evidence(self, path: Path, estimator: Estimator) -> ExampleEvidence:
        identity, outcomes = path.example.id, tuple(path.outcomes)
        if path.failure is not None:
            return ExampleEvidence(identity, "failed", None, None, path.failure, outcomes, {}, path.cost)
        answer = from_canonical(path.outcomes[-1].answer)
        realised = self._metric(answer, path.example.answers)
        score, curves = estimator.example(path)
        return ExampleEvidence(identity, "scored", score, realised, "", outcomes, curves, path.cost)

    def _spend(
        self,
        allocation: Allocation,
        paths: Sequence[Path],
        batch: _Batch,
        origin: str,
        claimed: set[tuple[PromptKey, int]],
        started: float,
        sharers: int,
    ) -> Spend:
        """What this allocation caused: a draw belongs to the first allocation of the batch that asked for it."""
        new = reused = prompt_tokens = output_tokens = 0
        cost = 0.0
        for path in paths:
            for stage, key in zip(self.pipeline.stages, path.keys, strict=False):
                setting = allocation[stage.name]
                fresh = []
                for draw in batch.filled.draws.get(key, ())[: setting.samples]:
                    if draw.origin == origin and (key, draw.index) not in claimed:
                        claimed.add((key, draw.index))
                        fresh.append(draw)
                    else:
                        reused += 1
                if fresh:
                    new += len(fresh)
                    prompt_tokens += fresh[0].prompt_tokens
                    output_tokens += sum(d.output_tokens for d in fresh)
                    spent = StageSetting(setting.model, setting.strategy, len(fresh))
                    cost += self.cost.measured(stage, spent, fresh[0].prompt_tokens, [d.output_tokens for d in fresh])
        seconds = (time.monotonic() - started) / max(1, sharers)
        return Spend(new, reused, prompt_tokens, output_tokens, cost, seconds)

    def score_answer(self, answer: str | None, example: Example) -> float:
        """Metric of a canonical final answer."""
        return self._metric(from_canonical(answer), example.answers)


class _Batch:
    """The paths of a batch and everything drawn for them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.filled = Filled()
        self.candidates: dict[tuple[str, PromptKey], tuple[Candidate, ...]] = {}
        self.score_keys: dict[tuple[str, PromptKey], list[PromptKey]] = {}

    def take(self, filled: Filled) -> None:
        self.filled.draws.update(filled.draws)
        self.filled.failures.update(filled.failures)
