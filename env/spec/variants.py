"""Writes out which variants of a fleet's models a study searches over: one candidate for each way to answer."""

from __future__ import annotations

from collections.abc import Iterable

from env.errors import ApportionError
from env.spec.faults import Fault, SpecError
from env.spec.pipeline import FleetModel, JudgeModel, ModelSpec, PipelineSpec
from env.spec.stage import StageSpec
from env.spec.study import StudySpec


def with_variants(spec: StudySpec) -> StudySpec:
    """The spec with every model that opens an answer-changing knob replaced by its variants among stages' candidates.

    The stored spec of a study then says what was searched, whatever becomes of the fleet file. Where the model is also
    a verifier, a critic or a strategy's choice, it stays as the fleet file states it. A second time changes nothing.

    Raises:
        SpecError: the fleet file lists no values, or a variant's name is taken.
    """
    pipeline = spec.pipeline
    faults: list[Fault] = []
    found: dict[str, dict[str, FleetModel]] = {}
    for name, model in pipeline.models.items():
        if isinstance(model, FleetModel) and _answer_knobs(model):
            try:
                found[name] = _variants(name, model)
            except ApportionError as error:
                faults.append(Fault(f"pipeline.models.{name}.open", str(error)))
                continue
            taken = [variant for variant in found[name] if variant in pipeline.models]
            faults += [Fault(f"pipeline.models.{one}", f"is also a variant of {name}; rename it") for one in taken]
    if faults:
        raise SpecError(faults)
    if not found:
        return spec
    kept = set(_named_elsewhere(pipeline))
    models: dict[str, ModelSpec] = {}
    for name, one in pipeline.models.items():
        if name not in found:
            models[name] = one
            continue
        models |= found[name]
        if name in kept and isinstance(one, FleetModel):
            models[name] = one.model_copy(update={"open": _speed_knobs(one)})
    stages = tuple(_with_candidates(stage, found) for stage in pipeline.stages)
    return spec.model_copy(update={"pipeline": pipeline.model_copy(update={"models": models, "stages": stages})})


def _variants(name: str, model: FleetModel) -> dict[str, FleetModel]:
    # Imported here: only studies on a fleet read its file.
    from env.fleet.load import configured_fleet
    from env.fleet.variants import variant_name, variants

    open_ = variants(configured_fleet(), model.model, _answer_knobs(model))
    speed = _speed_knobs(model)
    return {
        variant_name(name, knobs): model.model_copy(update={"model": served, "open": speed})
        for served, knobs in open_.items()
    }


def _answer_knobs(model: FleetModel) -> tuple[str, ...]:
    from env.fleet.variants import ANSWER_KNOBS

    return tuple(knob for knob in model.open if knob in ANSWER_KNOBS)


def _speed_knobs(model: FleetModel) -> tuple[str, ...]:
    from env.fleet.variants import SPEED_KNOBS

    return tuple(knob for knob in model.open if knob in SPEED_KNOBS)


def _named_elsewhere(pipeline: PipelineSpec) -> Iterable[str]:
    """Models that are named other than as a stage's candidates."""
    for model in pipeline.models.values():
        if isinstance(model, JudgeModel):
            yield model.model
    for stage in pipeline.stages:
        yield from (name for name in (stage.verifier, stage.critic) if name is not None)
        yield from (str(value) for choices in stage.knobs.values() for value in choices)


def _with_candidates(stage: StageSpec, found: dict[str, dict[str, FleetModel]]) -> StageSpec:
    models = tuple(one for name in stage.models for one in found.get(name, (name,)))
    return stage.model_copy(update={"models": models})
