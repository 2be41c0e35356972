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
from env.calls import Call, merged
from env.costs import CostOptions, PlanCost
from env.errors import ApportionError, TemplateError
from env.execution.allowance import Allowance
from env.execution.drawing import Drawing, Need
from env.execution.estimates import Estimator, Realised, answer_variable
from env.execution.evidence import ExampleEvidence, Spend, StageOutcome, TrialResult
from env.execution.progress import ProgressSink, no_progress
from env.execution.queries import Query, StageQueries
from env.execution.racing import Race, parts
from env.spans import span
from env.spec.pipeline import PipelineSpec
from env.spec.stage import PromptKind, StageSpec
from env.spec.study import CostUnit
from env.strategies import Candidate, StageRun
from env.strategies.prompts import CRITIC_PROMPTS
from env.tasks.example import Example, JsonValue
from env.tasks.metrics import metric_of, stage_answers
from env.tasks.parsers import canonical, from_canonical, parser_of
from env.tasks.prompts import render

SAMPLING_KNOBS = ("temperature", "top_p", "max_tokens")
"""Knobs that change how draws are sampled; a strategy's own hold a dot, all others are variables of the prompt."""


@dataclass
class Path:
    """One allocation on one example while it runs: what its stages delivered so far."""

    allocation: Allocation
    example: Example
    variables: dict[str, JsonValue]
    keys: list[PromptKey] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    outcomes: list[StageOutcome] = field(default_factory=list)
    cost: float = 0.0
    failure: str | None = None

    @property
    def upstream(self) -> tuple[str | None, ...]:
        """Answers of the stages so far."""
        return tuple(outcome.answer for outcome in self.outcomes)


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
        allowance: Allowance | None = None,
        race: Race | None = None,
    ) -> list[TrialResult]:
        """Evaluate allocations on examples.

        Running the same batch again draws nothing that is held, and gives the same result.

        Args:
            allocations: each valid for the pipeline.
            examples: the examples, the same for all.
            origin: names this batch; draws it causes carry it.
            progress: told after each stored chunk; raising from it stops the batch.
            allowance: what the batch may use; None for no limit.
            race: runs on a growing part of the examples and may stop allocations on the way; all run on all without.

        Raises:
            AllowanceSpent: a limit was reached; what was drawn until then is in the bank, and no trial has a result.

        Returns:
            One result per allocation, in order. Failed calls, and prompts that cannot be rendered from an upstream
            answer, fail their examples with the reason.
        """
        started = time.monotonic()
        drawing = Drawing(self._bank, self._backends, origin, progress, allowance)
        batch = _Batch([[] for _ in allocations])
        running = list(range(len(allocations)))
        for part, last in parts(len(examples), race):
            fresh: list[Path] = []
            for index in running:
                added = [Path(allocations[index], examples[i], dict(examples[i].fields)) for i in part]
                batch.paths[index] += added
                fresh += added
            for stage in self.pipeline.stages:
                await self._run_stage(stage, fresh, batch, drawing)
            if race is not None and not last:
                scores = await asyncio.to_thread(self._scores_so_far, batch, running)
                stopped = race.stopped(scores)
                running = [index for index in running if index not in stopped]
        # Estimation is plain computation on up to thousands of examples: keep it off the event loop.
        return await asyncio.to_thread(self._results, allocations, examples, batch, origin, started, drawing)

    def _scores_so_far(self, batch: _Batch, running: Sequence[int]) -> dict[int, list[float | None]]:
        """Scores of the allocations that still run, in the order of their examples; None where one failed."""
        estimator = Estimator(self, batch.candidates, self._backends, batch.realised)
        return {
            index: [None if path.failure is not None else estimator.score(path) for path in batch.paths[index]]
            for index in running
        }

    async def _run_stage(self, stage: StageSpec, paths: Sequence[Path], batch: _Batch, drawing: Drawing) -> None:
        stage_queries = StageQueries(stage, drawing, self._backends, self._bank)
        queries: dict[tuple[str, tuple[str | None, ...], StageSetting], Query] = {}
        running: list[tuple[Path, Query]] = []
        for path in paths:
            if path.failure is not None:
                continue
            setting = path.allocation[stage.name]
            # Allocations that agree so far ask the same: one query serves them all.
            place = (path.example.id, path.upstream, setting)
            try:
                if place not in queries:
                    queries[place] = stage_queries.query(self.stage_run(stage, setting, path.variables))
            except ApportionError as error:
                # An upstream answer the template cannot digest, such as an index out of range, ends this path only.
                path.failure = str(error)
                continue
            running.append((path, queries[place]))
        with span("stage", stage=stage.name, queries=len(queries), serves=len(running)):
            await stage_queries.run(list(queries.values()))
        for key, candidates in stage_queries.candidates.items():
            batch.candidates[stage.name, key] = candidates
        for place, query in queries.items():
            if query.failure is None:
                batch.realised[stage.name, *place] = query.answer
        self._seconds_taken(drawing)
        for path, query in running:
            self._advance(stage, path, query, len(stage_queries.held.get(query.own_key, ())))

    def need(self, stage: StageSpec, setting: StageSetting, samples: int, variables: Mapping[str, JsonValue]) -> Need:
        """Draws of a stage's own prompt.

        Raises:
            TemplateError: the template fails on these variables.
        """
        run = self.stage_run(stage, setting, variables)
        return Need(setting.model, run.messages, run.sampling, samples)

    def stage_run(self, stage: StageSpec, setting: StageSetting, variables: Mapping[str, JsonValue]) -> StageRun:
        """A stage on one query, its prompt rendered.

        Args:
            stage: the stage.
            setting: what it spends; knobs that are variables of the prompt go before the query's.
            variables: fields of the example and answers of earlier stages.

        Raises:
            TemplateError: the template fails on these variables.
        """
        knobs = {name: value for name, value in setting.knobs if "." not in name and name not in SAMPLING_KNOBS}
        names: dict[str, JsonValue] = {**variables, **knobs}
        try:
            messages = tuple(Message(m.role, render(m.template, names)) for m in stage.prompt)
        except TemplateError as error:
            raise TemplateError(f"stage {stage.name}: {error}") from error
        return self.prepared_run(stage, setting, messages, names)

    def prepared_run(
        self,
        stage: StageSpec,
        setting: StageSetting,
        messages: tuple[Message, ...],
        names: Mapping[str, JsonValue],
    ) -> StageRun:
        """A stage on messages that are written already.

        Args:
            stage: the stage.
            setting: what it spends.
            messages: the prompt.
            names: what the critic's prompts may name beside `prompt`, `attempt` and `attempts`.
        """

        def ask_critic(kind: PromptKind, values: Mapping[str, JsonValue]) -> tuple[Message, ...]:
            shown: dict[str, JsonValue] = {**names, "prompt": messages[-1].content, **values}
            try:
                return tuple(
                    Message(m.role, render(m.template, shown)) for m in stage.prompts.get(kind, CRITIC_PROMPTS[kind])
                )
            except TemplateError as error:
                raise TemplateError(f"prompt {kind}: {error}") from error

        def parse(text: str) -> str | None:
            return self.read(stage, text)

        return StageRun(stage, setting, messages, self._sampling(stage, setting), parse, ask_critic)

    def _sampling(self, stage: StageSpec, setting: StageSetting) -> Sampling:
        def chosen(name: str, otherwise: float) -> float:
            value = setting.knob(name)
            return otherwise if value is None else float(value)

        return Sampling(
            chosen("temperature", stage.temperature),
            chosen("top_p", stage.top_p),
            int(chosen("max_tokens", stage.max_tokens)),
            stage.stop,
            self._seed,
        )

    def read(self, stage: StageSpec, text: str) -> str | None:
        """The canonical answer in a reply of a stage; None where there is none."""
        return canonical(self._parsers[stage.name](text))

    def _advance(self, stage: StageSpec, path: Path, query: Query, held: int) -> None:
        path.keys.append(query.own_key)
        path.queries.append(query)
        if query.failure is not None:
            path.failure = query.failure
            return
        calls = query.calls()
        path.cost += self.cost.of(calls)
        drawn = [call for call in calls if call.samples]
        path.outcomes.append(
            StageOutcome(
                stage.name,
                query.answer,
                query.own_key,
                query.run.samples,
                held,
                round(sum(call.prompt * call.prompts for call in drawn)),
                round(sum(call.output * call.samples * call.prompts for call in drawn)),
                calls,
                tuple(key for key in query.asked if key != query.own_key),
                self._seconds_of(query),
                self._stage_score(stage, query.answer, path.example),
            )
        )
        path.variables[stage.name] = answer_variable(stage, query.answer)

    def _stage_score(self, stage: StageSpec, answer: str | None, example: Example) -> float | None:
        """Of a stage's own answer; None without a metric or without gold."""
        accepted = stage_answers(stage, example) if stage.metric is not None else ()
        if stage.metric is None or not accepted:
            return None
        return metric_of(stage.metric)(from_canonical(answer), accepted)

    def _seconds_taken(self, drawing: Drawing) -> None:
        for key, seconds in drawing.seconds.items():
            self._seconds.setdefault(key, {}).update(seconds)

    def _seconds_of(self, query: Query) -> float | None:
        """Time of a query's draws and of the verifier's passes over them; None where one is not known."""
        parts = [(key, i) for key, asked in query.asked.items() for i in asked.draws]
        parts += [(key, 0) for key in query.judged]
        known = [self._seconds[k][i] for k, i in parts if i in self._seconds.get(k, ())]
        return sum(known) if known and len(known) == len(parts) else None

    def _results(
        self,
        allocations: Sequence[Allocation],
        examples: Sequence[Example],
        batch: _Batch,
        origin: str,
        started: float,
        drawing: Drawing,
    ) -> list[TrialResult]:
        estimator = Estimator(self, batch.candidates, self._backends, batch.realised)
        results: list[TrialResult] = []
        claimed: set[tuple[PromptKey, int]] = set()
        places = {example.id: place for place, example in enumerate(examples)}
        loads = _shared_loads(drawing.load_seconds, batch.paths)
        for allocation, run, load in zip(allocations, batch.paths, loads, strict=True):
            paths = sorted(run, key=lambda path: places[path.example.id])
            evidence = tuple(self._evidence(path, estimator) for path in paths)
            scored = [e.cost for e in evidence if e.status == "scored"]
            new = self._new(paths, origin, claimed)
            seconds = (time.monotonic() - started - drawing.idle_seconds) / max(1, len(allocations))
            results.append(
                TrialResult(
                    allocation,
                    evidence,
                    self.cost.allocation(allocation),
                    sum(scored) / len(scored) if scored else None,
                    Spend(
                        new.draws,
                        new.reused,
                        new.prompt_tokens,
                        new.output_tokens,
                        self.cost.of(merged(new.calls)),
                        seconds,
                        load,
                    ),
                    merged([*new.calls, *new.scores]),
                    new.seconds,
                    new.timed_tokens / new.tokens if new.tokens else 1.0,
                    len(examples),
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

    def _new(self, paths: Sequence[Path], origin: str, claimed: set[tuple[PromptKey, int]]) -> _New:
        """What an allocation caused: a draw belongs to the first allocation of the batch that asked for it."""
        new = _New()
        for query in (query for path in paths for query in path.queries):
            for key, asked in query.asked.items():
                fresh = [d for i, d in asked.draws.items() if d.origin == origin and (key, i) not in claimed]
                claimed.update((key, draw.index) for draw in fresh)
                self._add(new, key, asked.model, asked.prompt_tokens, fresh, len(asked.draws) - len(fresh))
            for key, score in query.scored.items():
                if score.origin == origin and (key, 0) not in claimed:
                    claimed.add((key, 0))
                    call = query.judged[key]
                    new.scores.append(call)
                    self._add_time(new, key, call.model, score, call.prompt + score.output_tokens)
        return new

    def _add(
        self, new: _New, key: PromptKey, model: str, prompt_tokens: int, fresh: Sequence[Draw], reused: int
    ) -> None:
        outputs = sum(draw.output_tokens for draw in fresh)
        new.reused += reused
        if fresh:
            new.draws += len(fresh)
            new.prompt_tokens += prompt_tokens
            new.output_tokens += outputs
            new.calls.append(Call(model, prompt_tokens, outputs / len(fresh), len(fresh)))
        for draw in fresh:
            self._add_time(new, key, model, draw, draw.output_tokens + prompt_tokens / len(fresh))

    def _add_time(self, new: _New, key: PromptKey, model: str, draw: Draw, tokens: float) -> None:
        new.tokens += tokens
        seconds = self._seconds.get(key, {}).get(draw.index)
        if seconds is not None:
            new.seconds[model] = new.seconds.get(model, 0.0) + seconds
            new.timed_tokens += tokens

    def score_answer(self, answer: str | None, example: Example) -> float:
        """Metric of a canonical final answer."""
        return self._metric(from_canonical(answer), example.answers)


def _shared_loads(by_model: Mapping[str, float], parts: Sequence[Sequence[Path]]) -> list[float]:
    """Each allocation's part of the batch's load seconds: a model's are shared by those that asked it."""
    asked = [
        {model for path in paths for query in path.queries for model in query.models}
        if any(by_model.values())
        else set()
        for paths in parts
    ]
    users = {model: sum(model in models for models in asked) for model in by_model}
    return [sum(by_model[m] / users[m] for m in sorted(models) if m in by_model) for models in asked]


@dataclass
class _New:
    """What one allocation of a batch newly caused."""

    draws: int = 0
    reused: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    calls: list[Call] = field(default_factory=list)
    """Of the draws."""

    scores: list[Call] = field(default_factory=list)
    """Of the verifiers."""

    seconds: dict[str, float] = field(default_factory=dict)
    tokens: float = 0.0
    timed_tokens: float = 0.0


class _Batch:
    """The paths of a batch and everything drawn for them."""

    def __init__(self, paths: list[list[Path]]) -> None:
        self.paths = paths
        """By allocation, in the order they ran."""

        self.candidates: dict[tuple[str, PromptKey], tuple[Candidate, ...]] = {}
        self.realised: Realised = {}
