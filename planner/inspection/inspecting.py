"""Puts a trial's evidence on one example together with the draws behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import ValidationError

from env.allocation import Allocation, StageSetting
from env.backends._base import Draw, Message, ModelIdentity
from env.backends.pool import BackendPool
from env.bank import PromptKey, draw_key, parser_key, score_key
from env.errors import ApportionError
from env.execution import Environment
from env.execution.estimates import answer_variable
from env.execution.evidence import StageOutcome
from env.spec import StudySpec
from env.spec.pipeline import JudgeModel
from env.spec.stage import StageSpec
from env.strategies import STRATEGIES, ParallelStrategy
from env.tasks.data import DataError
from env.tasks.example import Example, JsonValue
from env.tasks.metrics import stage_answers
from env.tasks.parsers import canonical, parser_of
from planner.archive import Archive
from planner.archive.referenced import banked_name
from planner.inspection.examples import known_examples
from planner.inspection.inspected import InspectedDraw, InspectedExample, InspectedPrompt, InspectedStage

MOST_DRAWS = 200
"""Of one prompt that are shown."""


def inspect_example(archive: Archive, study_id: str, trial_no: int, example_id: str) -> InspectedExample:
    """What a trial did on one example. Reads only; draws that were pruned and texts that were dropped are said to be.

    Args:
        archive: where everything is.
        study_id: the study's whole id.
        trial_no: one of its trials.
        example_id: an example of that trial.

    Raises:
        NotFound: there is no such study, trial or example.
    """
    study = archive.studies.get(study_id)
    trial = archive.trials.get(study_id, trial_no)
    evidence = archive.trials.example(study_id, trial_no, example_id)
    spec = _spec(study.spec)
    example, data_note = _example(spec, example_id)
    stages = _Stages(archive, spec, example)
    return InspectedExample(
        example_id=example_id,
        status=evidence.status,
        reason=evidence.reason,
        score=evidence.score,
        realised=evidence.realised,
        cost=evidence.cost,
        fields=example.fields if example else None,
        gold=example.answers if example else (),
        data_note=data_note,
        stages=tuple(stages.next(outcome, _setting(trial.allocation, outcome.stage)) for outcome in evidence.stages),
    )


class _Stages:
    """Goes through an example's stages in order, as each prompt may name the answers before it."""

    def __init__(self, archive: Archive, spec: StudySpec | None, example: Example | None) -> None:
        self._archive = archive
        self._spec = spec
        self._example = example
        self._variables: dict[str, JsonValue] = dict(example.fields) if example else {}
        self._environment = _environment(archive, spec)

    def next(self, outcome: StageOutcome, setting: StageSetting | None) -> InspectedStage:
        """The next stage."""
        keys = [outcome.prompt_key, *outcome.other_keys]
        held = self._archive.bank.held(keys)
        models = self._archive.bank.models_of(keys)
        stage = self._stage(outcome.stage)
        messages, note = self._messages(stage, setting, outcome.prompt_key, models)
        own = held.get(outcome.prompt_key, ())
        shown = self._own_draws(stage, setting, outcome, own[:MOST_DRAWS], messages)
        prompts = [_prompt(outcome.prompt_key, "stage", models, len(own), shown)]
        for key in outcome.other_keys:
            others = held.get(key, ())
            draws = tuple(_as_kept(draw) for draw in others[:MOST_DRAWS])
            prompts.append(_prompt(key, "other", models, len(others), draws))
        if stage is not None:
            self._variables[outcome.stage] = answer_variable(stage, outcome.answer)
        asked = [draw for draw in shown if draw.asked]
        complete = len(asked) == outcome.samples and all(draw.answer_known for draw in asked)
        votes = Counter(draw.answer for draw in asked) if complete else Counter[str | None]()
        return InspectedStage(
            stage=outcome.stage,
            setting=setting,
            answer=outcome.answer,
            gold=stage_answers(stage, self._example) if stage is not None and self._example is not None else (),
            score=outcome.score,
            samples=outcome.samples,
            held=outcome.held,
            messages=messages,
            messages_note=note,
            prompts=tuple(prompts),
            votes=dict(votes.most_common()),
        )

    def _stage(self, name: str) -> StageSpec | None:
        if self._spec is None:
            return None
        return next((stage for stage in self._spec.pipeline.stages if stage.name == name), None)

    def _messages(
        self,
        stage: StageSpec | None,
        setting: StageSetting | None,
        key: PromptKey,
        models: Mapping[PromptKey, ModelIdentity],
    ) -> tuple[tuple[Message, ...] | None, str]:
        """The prompt rendered again, where its content key proves that it is the one that was asked."""
        if stage is None or setting is None or self._environment is None:
            return None, "the study's spec is of another version of Apportion"
        if self._example is None:
            return None, "the example is no longer in the data"
        if key not in models:
            return None, "its draws were pruned, so that nothing tells whether it would be the same"
        try:
            run = self._environment.stage_run(stage, setting, self._variables)
        except ApportionError as error:
            return None, str(error)
        if draw_key(models[key], run.messages, run.sampling) != key:
            return None, "the data has changed since: it no longer gives the prompt that was asked"
        return run.messages, ""

    def _own_draws(
        self,
        stage: StageSpec | None,
        setting: StageSetting | None,
        outcome: StageOutcome,
        draws: Sequence[Draw],
        messages: tuple[Message, ...] | None,
    ) -> tuple[InspectedDraw, ...]:
        kept: Mapping[int, str | None] = {}
        parse = None
        if stage is not None:
            parse = parser_of(stage.parser)
            kept = self._archive.bank.answers(parser_key(stage.parser), [outcome.prompt_key]).get(
                outcome.prompt_key, {}
            )
        parallel = setting is not None and isinstance(STRATEGIES.get(setting.strategy), ParallelStrategy)
        scores = self._scores(stage, messages, draws)
        shown: list[InspectedDraw] = []
        for draw in draws:
            known = draw.index in kept or (parse is not None and not draw.text_dropped)
            answer = kept.get(draw.index)
            if draw.index not in kept and parse is not None and not draw.text_dropped:
                answer = canonical(parse(draw.text))
            shown.append(
                replace(
                    _as_kept(draw),
                    answer=answer,
                    answer_known=known,
                    score=scores.get(draw.index, draw.score),
                    asked=draw.index < outcome.samples if parallel else None,
                    chosen=known and answer is not None and answer == outcome.answer,
                )
            )
        return tuple(shown)

    def _scores(
        self, stage: StageSpec | None, messages: tuple[Message, ...] | None, draws: Sequence[Draw]
    ) -> dict[int, float]:
        """The verifier's scores that the bank holds of these replies, by index."""
        if stage is None or stage.verifier is None or messages is None:
            return {}
        found: dict[int, float] = {}
        readable = [draw for draw in draws if not draw.text_dropped]
        for identity in self._scorers(stage.verifier):
            keys = {d.index: score_key(identity, (*messages, Message("assistant", d.text))) for d in readable}
            held = self._archive.bank.held(list(keys.values()))
            for index, key in keys.items():
                for score in held.get(key, ()):
                    if score.score is not None:
                        found.setdefault(index, score.score)
        return found

    def _scorers(self, verifier: str) -> list[ModelIdentity]:
        """Models of the bank that may be the verifier, whose revision the spec need not state."""
        known = self._archive.bank.models()
        spec = self._spec.pipeline.models.get(verifier) if self._spec is not None else None
        if spec is None or isinstance(spec, JudgeModel):
            return known
        try:
            name = banked_name(spec)
        except ApportionError:
            return []
        return [identity for identity in known if identity.name == name]


def _setting(allocation: Allocation, stage: str) -> StageSetting | None:
    return allocation[stage] if stage in allocation.stages else None


def _prompt(
    key: PromptKey,
    role: Literal["stage", "other"],
    models: Mapping[PromptKey, ModelIdentity],
    held: int,
    draws: tuple[InspectedDraw, ...],
) -> InspectedPrompt:
    model = models.get(key, ModelIdentity("", ""))
    missing = "" if held else "the bank no longer holds these draws: they were pruned"
    return InspectedPrompt(key, role, model.name, model.revision, held, draws, missing)


def _as_kept(draw: Draw) -> InspectedDraw:
    """A draw as the bank keeps it, before anything is read in it."""
    return InspectedDraw(
        index=draw.index,
        text=None if draw.text_dropped else draw.text,
        answer=None,
        answer_known=False,
        finish=draw.finish_reason,
        prompt_tokens=draw.prompt_tokens,
        output_tokens=draw.output_tokens,
        logprob=draw.logprob,
        score=draw.score,
        asked=None,
        chosen=False,
        origin=draw.origin,
    )


def _spec(raw: Mapping[str, object]) -> StudySpec | None:
    try:
        return StudySpec.model_validate(dict(raw))
    except ValidationError:
        return None


def _environment(archive: Archive, spec: StudySpec | None) -> Environment | None:
    """Renders prompts as the study's own did; it opens no model."""
    if spec is None:
        return None
    try:
        return Environment(spec.pipeline, spec.budget.plan.unit, archive.bank, BackendPool({}), spec.seed)
    except ApportionError:
        return None


def _example(spec: StudySpec | None, example_id: str) -> tuple[Example | None, str]:
    if spec is None:
        return None, "the study's spec is of another version of Apportion"
    try:
        found = known_examples(spec.data).get(example_id)
    except (DataError, OSError) as error:
        return None, f"the study's data can no longer be read: {error}"
    return found, "" if found else "the example is no longer in the study's data"
