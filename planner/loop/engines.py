"""Settles engine knobs that change no answer: before the first batch, by measuring, and once for a study.

A trial could not tell such variants apart, since they share their draws; so none is spent on them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from env.allocation import Allocation
from env.errors import ApportionError
from env.spec import StudySpec
from env.spec.pipeline import FleetModel, JudgeModel, PipelineSpec
from planner.loop.context import StudyContext
from planner.plans.document import EngineLine

EVENT = "engines"
"""Kind and key of the event that keeps what was measured and chosen; whoever resumes the study reads it."""

MOST_CHOICES = 16
MOST_REQUESTS = 32
LEAST_TOKENS = 8


async def settle_engines(context: StudyContext) -> Mapping[str, Any]:
    """Choose the fastest variant of every model with open knobs, or take up what was chosen before.

    Returns:
        By the pipeline's models: the chosen ``variant``, its ``knobs``, and what was ``measured`` of each variant.

    Raises:
        FleetError: no variant of a model could be served and measured.
    """
    open_ = {n: m for n, m in context.spec.pipeline.models.items() if isinstance(m, FleetModel) and m.open}
    if not open_ or not context.owns_backends:
        return {}
    settled = settled_engines(context)
    if not settled:
        context.check_cancel()
        settled = {name: await _settle(context.spec, name, model) for name, model in open_.items()}
        context.event(EVENT, {"engines": settled}, EVENT)
    for name, engine in settled.items():
        context.serve_as(name, engine["variant"])
    return settled


def settled_engines(context: StudyContext) -> Mapping[str, Any]:
    """What was chosen; empty where nothing is open or nothing was chosen yet."""
    event = context.archive.events.latest(context.study_id, EVENT)
    return {} if event is None else dict(event.payload["engines"])


def plan_engines(context: StudyContext, allocation: Allocation) -> list[EngineLine]:
    """How the fleet serves a plan's models, verifiers and critics included; none where they are not the fleet's."""
    used = _fleet_models(context.spec.pipeline, allocation)
    if not used:
        return []
    settled = settled_engines(context)
    return [_line(name, model, settled.get(name, {})) for name, model in used.items()]


def _fleet_models(pipeline: PipelineSpec, allocation: Allocation) -> dict[str, FleetModel]:
    """The fleet's models that an allocation asks, by the pipeline's names."""
    found: dict[str, FleetModel] = {}
    for stage, setting in allocation.settings:
        spec = pipeline.stage(stage)
        for named in (setting.model, spec.verifier, spec.critic, *(str(value) for _, value in setting.knobs)):
            model = pipeline.models.get(named or "")
            name = model.model if isinstance(model, JudgeModel) else named
            model = pipeline.models.get(name or "")
            if name is not None and isinstance(model, FleetModel):
                found.setdefault(name, model)
    return found


def _line(name: str, model: FleetModel, engine: Mapping[str, Any]) -> EngineLine:
    # Imported here: only studies on a fleet need one.
    from env.fleet.load import configured_fleet
    from env.fleet.planning import serve_line
    from env.fleet.variants import knobs_of

    served = str(engine.get("variant", model.model))
    try:
        file = configured_fleet()
        file.model(served)
        knobs, command = knobs_of(file.spec.models, served), serve_line(file, served)
    except ApportionError as error:
        # The study is done and its plan stands, whatever became of the fleet file in the meantime.
        knobs, command = dict(engine.get("knobs", {})), f"not known any more: {error}"
    measured = {n: figures for n, figures in engine.get("measured", {}).items() if "error" not in figures}
    return EngineLine(
        model=name,
        served=served,
        knobs=knobs,
        tokens_per_second={n: figures["tokens_per_second"]["median"] for n, figures in measured.items()},
        not_told_apart=list(engine.get("not_told_apart", [])),
        command=command,
    )


async def _settle(spec: StudySpec, name: str, model: FleetModel) -> dict[str, Any]:
    # Imported here: only studies on a fleet need one.
    from env.fleet.load import configured_fleet
    from env.fleet.picking import compare_variants
    from env.fleet.shared import shared_fleet
    from env.fleet.tune import best_of
    from env.fleet.variants import knobs_of, variants

    file = configured_fleet()
    measured = await compare_variants(
        file, shared_fleet(file), variants(file, model.model, model.open), _load(spec, name, model)
    )
    best, tied = best_of(list(measured.values()))
    variant = next(variant for variant, one in measured.items() if one is best)
    return {
        "variant": variant,
        "knobs": knobs_of(file.spec.models, variant),
        "measured": {one: figures.report() for one, figures in measured.items()},
        "not_told_apart": [one for one, figures in measured.items() if any(figures is other for other in tied)],
    }


def _load(spec: StudySpec, name: str, model: FleetModel) -> Any:
    """A load of the shape that the study will put on a model: its heaviest stage's, at most a few hundred answers."""
    from env.fleet.load import configured_fleet
    from env.fleet.tune import Workload

    def answers(samples: int) -> int:
        return min(samples, MOST_CHOICES)

    asking = [s for s in spec.pipeline.stages if name in (*s.models, s.critic)] or list(spec.pipeline.stages)
    stage = max(asking, key=lambda s: s.tokens.output * answers(s.samples.values()[-1]))
    requests = min(MOST_REQUESTS, max(4, spec.data.search))
    file = configured_fleet()
    texts: tuple[str, ...] = ()
    if file.checkpoint(model.model) is None:
        # No vocabulary to take token ids from: numbers are a token or two each in any.
        generator = random.Random(spec.seed)
        count = max(1, stage.tokens.prompt // 2)
        texts = tuple(" ".join(str(generator.randrange(100)) for _ in range(count)) for _ in range(requests))
    return Workload(
        requests=requests,
        n=answers(stage.samples.values()[-1]),
        concurrency=min(model.concurrency, requests),
        prompt_tokens=stage.tokens.prompt,
        max_tokens=max(LEAST_TOKENS, stage.tokens.output),
        seed=spec.seed,
        prompts=texts,
    )
