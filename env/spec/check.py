"""Checks what types cannot: names that must exist, templates with a source, data, and a budget something can meet."""

from __future__ import annotations

import os
from itertools import product

from env.allocation import Allocation, StageSetting
from env.costs.plan_cost import PlanCost, model_parameters
from env.errors import ApportionError, CheckpointError, TemplateError
from env.spec.checkpoints import resolve_checkpoint
from env.spec.faults import Fault
from env.spec.pipeline import FleetModel, OpenAIModel, PipelineSpec, StageSpec, TorchModel
from env.spec.study import StudySpec
from env.tasks.data import DataError, Splits, load_splits
from env.tasks.prompts import template_variables


def check_study(spec: StudySpec) -> list[Fault]:
    """Every fault of a well-typed spec; an empty list means the study can run.

    Reads the data set and the checkpoints' configs, talks to no server.
    """
    faults = _check_models(spec.pipeline)
    splits, data_faults = _check_data(spec)
    faults += data_faults
    faults += _check_stages(spec.pipeline, splits)
    if not faults:
        faults += _check_budget(spec)
    return faults


def _check_models(pipeline: PipelineSpec) -> list[Fault]:
    faults: list[Fault] = []
    for name, model in pipeline.models.items():
        path = f"pipeline.models.{name}"
        if isinstance(model, TorchModel):
            try:
                resolve_checkpoint(model.checkpoint)
            except CheckpointError as error:
                faults.append(Fault(f"{path}.checkpoint", str(error)))
        elif isinstance(model, FleetModel):
            faults += _check_fleet_model(model, path)
        elif isinstance(model, OpenAIModel) and model.api_key_env and not os.environ.get(model.api_key_env):
            faults.append(Fault(f"{path}.api_key_env", f"the environment variable {model.api_key_env} is not set"))
    return faults


def _check_fleet_model(model: FleetModel, path: str) -> list[Fault]:
    # Imported here: only studies on a fleet read its file.
    from env.fleet import configured_fleet, plan_memory

    try:
        fleet = configured_fleet()
        plan_memory(fleet, [model.model])
        if fleet.checkpoint(model.model) is None and model.parameters is None:
            message = f"the checkpoint of {model.model} is not on this machine, so its size is not known; state it"
            return [Fault(f"{path}.parameters", message)]
    except ApportionError as error:
        return [Fault(f"{path}.model", str(error))]
    return []


def _check_data(spec: StudySpec) -> tuple[Splits | None, list[Fault]]:
    try:
        return load_splits(spec.data), []
    except DataError as error:
        field = {"file": "data.path", "inline": "data.rows", "ledger": "data"}[spec.data.source]
        return None, [Fault(field, str(error))]
    except (ApportionError, ValueError, KeyError) as error:
        return None, [Fault("data", str(error))]


def _check_stages(pipeline: PipelineSpec, splits: Splits | None) -> list[Fault]:
    faults: list[Fault] = []
    # A template may only rely on fields that every example has.
    rows = [*splits.search, *splits.test] if splits else []
    fields = set.intersection(*(set(row.fields) for row in rows)) if rows else None
    earlier: list[str] = []
    for position, stage in enumerate(pipeline.stages):
        path = f"pipeline.stages[{position}]"
        if stage.name in earlier:
            faults.append(Fault(f"{path}.name", f"there are two stages called {stage.name!r}"))
        if fields and stage.name in fields:
            faults.append(Fault(f"{path}.name", f"the examples have a field {stage.name!r} too; rename the stage"))
        faults += _check_names(pipeline, stage, path)
        faults += _check_templates(stage, path, fields, earlier, pipeline)
        earlier.append(stage.name)
    return faults


def _check_names(pipeline: PipelineSpec, stage: StageSpec, path: str) -> list[Fault]:
    known = ", ".join(pipeline.models)
    faults = [
        Fault(f"{path}.models[{i}]", f"no model {name!r} under pipeline.models; there are {known}")
        for i, name in enumerate(stage.models)
        if name not in pipeline.models
    ]
    if len(set(stage.models)) != len(stage.models):
        faults.append(Fault(f"{path}.models", "a model is named twice"))
    if stage.verifier is not None and stage.verifier not in pipeline.models:
        faults.append(
            Fault(f"{path}.verifier", f"no model {stage.verifier!r} under pipeline.models; there are {known}")
        )
    if "best_of_n" in stage.strategies and stage.verifier is None:
        faults.append(Fault(f"{path}.verifier", "best_of_n needs a verifier: name the model that scores candidates"))
    if "union" in stage.strategies and stage.parser.kind != "ids":
        faults.append(Fault(f"{path}.strategies", "union joins sets of ids: give the stage a parser of kind ids"))
    return faults


def _check_templates(
    stage: StageSpec, path: str, fields: set[str] | None, earlier: list[str], pipeline: PipelineSpec
) -> list[Fault]:
    faults: list[Fault] = []
    later = {s.name for s in pipeline.stages} - set(earlier)
    for i, message in enumerate(stage.prompt):
        place = f"{path}.prompt[{i}].template"
        try:
            wanted = template_variables(message.template)
        except TemplateError as error:
            faults.append(Fault(place, str(error)))
            continue
        for name in sorted(wanted):
            if name in earlier or (fields is not None and name in fields) or (fields is None and name not in later):
                continue
            sources = ", ".join([*sorted(fields or ()), *earlier]) or "none"
            why = "that stage does not come earlier" if name in later else "nothing supplies it"
            faults.append(Fault(place, f"the variable {name!r} has no source: {why}; there are {sources}"))
    return faults


def cheapest_allocation(pipeline: PipelineSpec, cost: PlanCost) -> Allocation:
    """The allocation with the lowest predicted cost (stage costs add up, so each stage's cheapest)."""
    return Allocation.of(
        {
            stage.name: min(
                (
                    StageSetting(model, strategy, min(stage.samples.values()))
                    for model, strategy in product(stage.models, stage.strategies)
                ),
                key=lambda setting, stage=stage: (cost.stage(stage, setting), setting),  # type: ignore[misc]
            )
            for stage in pipeline.stages
        }
    )


def _check_budget(spec: StudySpec) -> list[Fault]:
    try:
        model_parameters(spec.pipeline)
    except CheckpointError as error:
        return [Fault("pipeline.models", str(error))]
    cost = PlanCost(spec.pipeline, spec.budget.plan.unit)
    cheapest = cheapest_allocation(spec.pipeline, cost)
    lowest = cost.allocation(cheapest)
    if lowest <= spec.budget.plan.limit:
        return []
    message = (
        f"{spec.budget.plan.limit:g} {cost.unit} per query is below the cheapest allocation, "
        f"{lowest:.6g} {cost.unit} ({cheapest}); raise it to at least that"
    )
    return [Fault("budget.plan.limit", message)]
