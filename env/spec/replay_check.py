"""Checks a pipeline with recorded models against its pools: what a study will ask for must have been recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from env.backends._base import Message
from env.backends.replay_address import Address, AddressError, address_of
from env.backends.replay_pool import PoolError, RecordedPool, open_pool
from env.errors import TemplateError
from env.spec.faults import Fault
from env.spec.pipeline import PipelineSpec, ReplayModel
from env.spec.stage import StageSpec
from env.tasks.data import DataError, confined
from env.tasks.example import Example, JsonValue
from env.tasks.prompts import render, template_variables


def check_replay(pipeline: PipelineSpec, examples: Sequence[Example]) -> list[Fault]:
    """Faults of the recorded models and of the stages that use them.

    The draws of stages that read no earlier answer are all looked up; of later stages, whose upstream answers only the
    search will show, it is checked that each example was recorded there at all.

    Args:
        pipeline: a pipeline without other faults.
        examples: every example of the study.
    """
    faults: list[Fault] = []
    pools: dict[str, RecordedPool] = {}
    for name, model in pipeline.models.items():
        if not isinstance(model, ReplayModel):
            continue
        path = f"pipeline.models.{name}"
        try:
            pool = open_pool(confined(model.path))
        except (DataError, PoolError) as error:
            faults.append(Fault(f"{path}.path", str(error)))
            continue
        if model.model not in pool.models:
            known = ", ".join(pool.models)
            faults.append(Fault(f"{path}.model", f"{pool.name} holds no draws of {model.model!r}; it has {known}"))
            continue
        pools[name] = pool
    earlier: dict[str, StageSpec] = {}
    for position, stage in enumerate(pipeline.stages):
        if any(isinstance(pipeline.models[name], ReplayModel) for name in stage.models):
            path = f"pipeline.stages[{position}]"
            faults += _check_stage(pipeline, stage, path, pools, examples, earlier)
        verifier = pipeline.models.get(stage.verifier) if stage.verifier else None
        if isinstance(verifier, ReplayModel):
            message = f"{stage.verifier} is a pool of recorded draws, which holds no scores; use a live verifier"
            faults.append(Fault(f"pipeline.stages[{position}].verifier", message))
        earlier[stage.name] = stage
    return faults


def _check_stage(
    pipeline: PipelineSpec,
    stage: StageSpec,
    path: str,
    pools: Mapping[str, RecordedPool],
    examples: Sequence[Example],
    earlier: Mapping[str, StageSpec],
) -> list[Fault]:
    prompt = f"{path}.prompt[{len(stage.prompt) - 1}].template"
    template = stage.prompt[-1].template
    reads_earlier = bool(template_variables(template) & set(earlier))
    addresses: list[Address] = []
    for example in examples:
        try:
            text = render(template, {**example.fields, **_stand_ins(earlier)})
            addresses.append(address_of([Message("user", text)]))
        except (TemplateError, AddressError) as error:
            return [Fault(prompt, f"on example {example.id!r}: {error}")]
    faults: list[Fault] = []
    if stage.stop:
        faults.append(Fault(f"{path}.stop", "a recorded draw has its answer only, so nothing can be cut; leave it out"))
    for position, name in enumerate(stage.models):
        model = pipeline.models[name]
        if not isinstance(model, ReplayModel) or name not in pools:
            continue
        pool, place = pools[name], f"{path}.models[{position}]"
        unknown = sorted({a.stage for a in addresses} - set(pool.stages(model.model)))
        if unknown:
            known = ", ".join(pool.stages(model.model))
            message = f"{pool.name} holds no draws of {model.model!r} at stage {unknown[0]!r}; it has {known}"
            faults.append(Fault(place, message))
            continue
        faults += _check_draws(stage, path, place, pool, model.model, addresses, reads_earlier)
    return faults


def _check_draws(
    stage: StageSpec,
    path: str,
    place: str,
    pool: RecordedPool,
    model: str,
    addresses: Sequence[Address],
    reads_earlier: bool,
) -> list[Fault]:
    recorded = {name: pool.examples(model, name) for name in {a.stage for a in addresses}}
    absent = [a for a in addresses if a.example not in recorded[a.stage]]
    if absent:
        message = f"{pool.name} holds no draws of {model!r} for {len(absent)} examples of the study, first {absent[0]}"
        return [Fault(place, message)]
    faults: list[Fault] = []
    if not reads_earlier:
        most = max(stage.samples.values())
        wanted = range(most)
        short = [a for a in addresses if not pool.held(model, a).keys() >= set(wanted)]
        if short:
            held = len(pool.held(model, short[0]))
            message = (
                f"up to {most} draws are asked for, and {pool.name} does not hold draws 0 to {most - 1} of {model!r} "
                f"for {len(short)} examples; the first, {short[0]}, has {held}"
            )
            faults.append(Fault(f"{path}.samples", message))
    least = max((pool.least_tokens(model, name) for name in recorded), default=0)
    if stage.max_tokens < least:
        message = (
            f"{pool.name} does not say what {model!r} answers within {stage.max_tokens} tokens for every draw; "
            f"{least} or more is answered for all"
        )
        faults.append(Fault(f"{path}.max_tokens", message))
    return faults


def _stand_ins(earlier: Mapping[str, StageSpec]) -> dict[str, JsonValue]:
    """An answer of the right shape for each earlier stage."""
    return {name: [1] if stage.parser.kind == "ids" else "an answer" for name, stage in earlier.items()}
