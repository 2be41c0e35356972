"""Answers single queries as a plan allocates them: fresh draws, no gold, nothing kept beyond the answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from env.allocation import Allocation, StageSetting
from env.backends import Draw, DrawRequest, Failed, Message
from env.backends._base import StreamingBackend
from env.backends.pool import Backends
from env.bank import MemorySampleBank
from env.calls import Call
from env.costs import CostOptions
from env.errors import BackendError
from env.execution.allowance import Allowance, Quota
from env.execution.drawing import Drawing, Need, key_of, score_key_of
from env.execution.environment import SAMPLING_KNOBS, Environment
from env.execution.estimates import answer_variable
from env.execution.progress import no_progress
from env.execution.queries import Query, StageQueries
from env.spec.pipeline import PipelineSpec
from env.spec.stage import AfterParser, IdsParser, JsonParser, ParserSpec
from env.spec.study import CostUnit
from env.strategies import STRATEGIES, StagePlan, StageRun
from env.tasks.example import JsonValue
from env.tasks.parsers import from_canonical
from env.tasks.prompts import template_variables

OnText = Callable[[str], None]


class StageFailed(BackendError):
    """A stage's model calls failed for good, so that the query has no answer."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


@dataclass(frozen=True)
class Wishes:
    """What one query may ask beside its input; nothing here can make it spend more than its allocation."""

    seed: int = 0
    """Decides the draws, where the models allow it."""

    max_tokens: int | None = None
    """Of a reply of the last stage; never more than the plan gives it."""

    stop: tuple[str, ...] = ()
    """Further strings that end a reply of the last stage."""

    max_cost: float | None = None
    """Of the query, in the plan's unit: requests are sent only while their worst case fits."""


@dataclass(frozen=True)
class StageAnswer:
    """What one stage did for a query."""

    stage: str
    setting: StageSetting
    answer: JsonValue
    """As the stage's parser reads it; None where no reply could be read."""

    text: str
    """The reply that gave the answer; where several gave it together, the answer in the form the parser reads."""

    complete: bool
    """False where that reply was cut off at its most tokens."""

    calls: tuple[Call, ...]
    draws: int
    seconds: float
    cost: float
    """In the plan's unit."""

    @property
    def prompt_tokens(self) -> int:
        """Of all calls, verifiers and critics included."""
        return round(sum(call.prompt * call.prompts for call in self.calls))

    @property
    def output_tokens(self) -> int:
        """Of all calls."""
        return round(sum(call.output * call.samples * call.prompts for call in self.calls))


@dataclass(frozen=True)
class LiveAnswer:
    """One query's way through the stages that were asked."""

    stages: tuple[StageAnswer, ...]
    seconds: float

    @property
    def last(self) -> StageAnswer:
        """The stage whose answer counts."""
        return self.stages[-1]

    @property
    def cost(self) -> float:
        """In the plan's unit."""
        return sum(stage.cost for stage in self.stages)


class LivePipeline:
    """A pipeline that answers queries, by the same strategies, backends and parsers as trials.

    Every query draws into a bank of its own that goes with it, so that no draw is ever used twice. Safe to use from
    several tasks of one event loop; cancelling a query drops its requests.
    """

    def __init__(
        self, pipeline: PipelineSpec, unit: CostUnit, backends: Backends, options: CostOptions | None = None
    ) -> None:
        """Bind a pipeline to its models.

        Args:
            pipeline: what is run.
            unit: of the costs.
            backends: serve its models; closing them is the caller's.
            options: how the models are taken to be served, for the costs.

        Raises:
            ApportionError: a model cannot be priced.
        """
        self.pipeline = pipeline
        self._backends = backends
        self._environment = Environment(pipeline, unit, MemorySampleBank(), backends, 0, options)

    @property
    def unit(self) -> str:
        """Of the costs, as people write it."""
        return self._environment.cost.unit

    def input_fields(self, allocation: Allocation) -> tuple[str, ...]:
        """What a query has to give: the variables of the prompts that no earlier stage and no knob supplies."""
        return input_fields(self.pipeline, allocation)

    def predicted_cost(self, allocation: Allocation) -> float:
        """Of a query, at the planned tokens."""
        return self._environment.cost.allocation(allocation)

    def stage_cost(self, stage: str, setting: StageSetting) -> float:
        """Of one stage of a query, at the planned tokens."""
        return self._environment.cost.stage(self.pipeline.stage(stage), setting)

    async def answer(
        self,
        allocation: Allocation,
        fields: Mapping[str, JsonValue],
        wishes: Wishes | None = None,
        on_text: OnText | None = None,
    ) -> LiveAnswer:
        """Run one query through all stages.

        Args:
            allocation: what each stage spends; never more is drawn.
            fields: what the prompts name; see `input_fields`.
            wishes: further wishes.
            on_text: told the last stage's reply while it grows, where that stage draws once and its model's server
                can stream.

        Raises:
            TemplateError: a field is missing, or a prompt cannot be rendered from an upstream answer.
            AllowanceSpent: `Wishes.max_cost` does not buy the next request.
            StageFailed: a stage's calls failed.
        """
        wishes = wishes or Wishes()
        began = time.monotonic()
        allowance = self._allowance(allocation.settings, wishes)
        variables = dict(fields)
        answers: list[StageAnswer] = []
        for name, setting in allocation.settings:
            stage = self.pipeline.stage(name)
            last = len(answers) == len(allocation.settings) - 1
            # On a thread: a template may work for a while, and nobody else is to wait for it.
            run = await asyncio.to_thread(self._environment.stage_run, stage, setting, variables)
            run = _sampled(run, wishes, last)
            answer = await self._run(run, allowance, on_text if last else None)
            answers.append(answer)
            variables[name] = answer_variable(stage, None) if answer.answer is None else answer.answer
        return LiveAnswer(tuple(answers), time.monotonic() - began)

    async def answer_stage(
        self,
        stage: str,
        setting: StageSetting,
        messages: Sequence[Message],
        wishes: Wishes | None = None,
        fields: Mapping[str, JsonValue] | None = None,
        on_text: OnText | None = None,
    ) -> LiveAnswer:
        """Run one stage alone on the caller's own messages.

        Args:
            stage: whose parser, sampling, verifier and critic are used.
            setting: what it spends.
            messages: the prompt, in place of the stage's own.
            wishes: further wishes.
            fields: variables that the critic's prompts name beside `prompt` and `attempt`.
            on_text: as in `answer`.

        Raises:
            TemplateError: a critic's prompt names a variable that is not given.
            AllowanceSpent: `Wishes.max_cost` does not buy the next request.
            StageFailed: the calls failed.
        """
        wishes = wishes or Wishes()
        began = time.monotonic()
        spec = self.pipeline.stage(stage)
        run = self._environment.prepared_run(spec, setting, tuple(messages), dict(fields or {}))
        answer = await self._run(_sampled(run, wishes, True), self._allowance([(stage, setting)], wishes), on_text)
        return LiveAnswer((answer,), time.monotonic() - began)

    def _allowance(self, settings: Sequence[tuple[str, StageSetting]], wishes: Wishes) -> Allowance:
        """As many draws as the allocation has at most, whatever a strategy asks for; and what the caller would pay."""
        plans = [StagePlan(self.pipeline.stage(name), setting) for name, setting in settings]
        most = sum(STRATEGIES[plan.setting.strategy].most_draws(plan) for plan in plans)
        quotas = [Quota("draws", "draws", float(most), _draws)]
        if wishes.max_cost is not None:
            quotas.append(Quota("max_cost", self.unit, wishes.max_cost, self._environment.cost.of))
        return Allowance(quotas)

    async def _run(self, run: StageRun, allowance: Allowance, on_text: OnText | None) -> StageAnswer:
        began = time.monotonic()
        stage = run.stage
        bank = MemorySampleBank()
        drawing = Drawing(bank, self._backends, "", no_progress, allowance)
        queries = StageQueries(stage, drawing, self._backends, bank)
        try:
            if on_text is not None and run.samples == 1:
                await self._stream(run, bank, allowance, on_text)
            query = queries.query(run)
            await queries.run([query])
        except BackendError as error:
            raise StageFailed(stage.name, str(error)) from error
        if query.failure is not None:
            raise StageFailed(stage.name, query.failure)
        calls = query.calls()
        reply = self._reply(run, query)
        answer = from_canonical(query.answer)
        return StageAnswer(
            stage.name,
            run.setting,
            answer,
            written(stage.parser, answer) if reply is None else reply.text,
            reply is None or reply.finish_reason != "length",
            calls,
            sum(len(asked.draws) for asked in query.asked.values()),
            time.monotonic() - began,
            self._environment.cost.of(calls),
        )

    async def _stream(self, run: StageRun, bank: MemorySampleBank, allowance: Allowance, on_text: OnText) -> None:
        """Draw the only sample while telling of its growth; the strategy then finds it drawn."""
        backend = self._backends.backend(run.setting.model)
        if not isinstance(backend, StreamingBackend):
            return
        told = False

        def tell(text: str) -> None:
            nonlocal told
            told = True
            on_text(text)

        request = DrawRequest(run.messages, run.sampling, (0,))
        draws: tuple[Draw, ...] = ()
        await allowance.admit(run.setting.model, [request])
        try:
            outcome = await backend.stream(request, tell)
            if isinstance(outcome, Failed):
                # Before anything was told, the usual way with its retries may still answer.
                if told:
                    raise StageFailed(run.stage.name, f"{run.stage.name}: {outcome.reason}")
                return
            draws = outcome.draws
        finally:
            await allowance.answered(run.setting.model, [request], [draws])
        key = key_of(self._backends, Need(run.setting.model, run.messages, run.sampling, 1))
        bank.settle(backend.identity, {key: draws})

    def _reply(self, run: StageRun, query: Query) -> Draw | None:
        """The reply behind the answer, the best judged of several; None where no single one gave it."""
        found: list[tuple[float, Draw]] = []
        for asked in query.asked.values():
            for draw in asked.draws.values():
                if run.parse(draw.text) == query.answer:
                    found.append((self._judged(run, query, draw), draw))
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def _judged(self, run: StageRun, query: Query, draw: Draw) -> float:
        if run.stage.verifier is None or not query.scored:
            return 0.0
        messages = (*run.messages, Message("assistant", draw.text))
        scored = query.scored.get(score_key_of(self._backends, run.stage.verifier, messages))
        return scored.score if scored is not None and scored.score is not None else 0.0


def input_fields(pipeline: PipelineSpec, allocation: Allocation) -> tuple[str, ...]:
    """What a query has to give: the variables of the prompts that no earlier stage and no knob supplies."""
    supplied: set[str] = set()
    needed: dict[str, None] = {}
    for name, setting in allocation.settings:
        stage = pipeline.stage(name)
        own = {knob for knob, _ in setting.knobs if "." not in knob and knob not in SAMPLING_KNOBS}
        for message in stage.prompt:
            needed.update(dict.fromkeys(sorted(template_variables(message.template) - supplied - own)))
        supplied.add(name)
    return tuple(needed)


def written(parser: ParserSpec, answer: JsonValue) -> str:
    """An answer as a reply that this parser reads as that answer; empty where there is none."""
    if answer is None:
        return ""
    match parser:
        case IdsParser() if isinstance(answer, list):
            return " ".join(f"{parser.prefix}{number}" for number in answer)
        case AfterParser():
            return f"{parser.marker} {answer}"
        case JsonParser():
            return json.dumps({parser.field: answer} if parser.field else answer, ensure_ascii=False)
        case _:
            return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def shown(answer: JsonValue) -> str:
    """An answer as text: itself where it is one, else as JSON."""
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _sampled(run: StageRun, wishes: Wishes, last: bool) -> StageRun:
    sampling = replace(run.sampling, seed=wishes.seed)
    if last:
        most = sampling.max_tokens if wishes.max_tokens is None else min(wishes.max_tokens, sampling.max_tokens)
        stops = tuple(dict.fromkeys((*sampling.stop, *wishes.stop)))
        sampling = replace(sampling, max_tokens=most, stop=stops)
    return replace(run, sampling=sampling)


def _draws(calls: Iterable[Call]) -> float:
    return float(sum(call.samples * call.prompts for call in calls))
