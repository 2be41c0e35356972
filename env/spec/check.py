"""Checks what types cannot: names that must exist, templates with a source, data, and a budget something can meet."""

from __future__ import annotations

import os
from collections.abc import Mapping

from env.allocation import Allocation
from env.costs import CostOptions, PlanCost, PlanLimits
from env.costs.money import read_prices
from env.costs.profiles import profile_faults
from env.egress import EgressError, current
from env.errors import ApportionError, CheckpointError, TemplateError
from env.spec.architecture import Price
from env.spec.checkpoints import resolve_checkpoint
from env.spec.faults import Fault
from env.spec.pipeline import FleetModel, JudgeModel, ModelSpec, OpenAIModel, PipelineSpec, ReplayModel, TorchModel
from env.spec.stage import StageSpec
from env.spec.study import StudySpec
from env.strategies import STRATEGIES
from env.strategies.settings import knob_fault, stage_settings
from env.tasks.data import DataError, Splits, confined, load_splits
from env.tasks.metrics import stage_answers
from env.tasks.prompts import template_variables


def check_study(spec: StudySpec) -> list[Fault]:
    """Every fault of a well-typed spec; an empty list means the study can run.

    Reads the data set and the checkpoints' configs, talks to no server.
    """
    faults = _check_models(spec.pipeline)
    splits, data_faults = _check_data(spec)
    faults += data_faults
    faults += _check_stages(spec.pipeline, splits)
    faults += _check_constraints(spec)
    faults += _check_proposer(spec)
    if not faults and any(isinstance(model, ReplayModel) for model in spec.pipeline.models.values()):
        # Imported here: pyarrow is only needed by studies on recorded pools.
        from env.spec.replay_check import check_replay

        faults += check_replay(spec.pipeline, (*splits.search, *splits.test) if splits else ())
    if not faults:
        faults += _check_budget(spec)
    return faults


def _check_proposer(spec: StudySpec) -> list[Fault]:
    """Its LLM must be one that may be asked; what it may cost can only be kept to where its price is known."""
    proposer, faults = spec.proposer, list[Fault]()
    try:
        if proposer.base_url is not None:
            current().checked_url(proposer.base_url)
    except EgressError as error:
        faults.append(Fault("proposer.base_url", str(error)))
    try:
        if proposer.api_key_env is not None:
            current().check_key(proposer.api_key_env, proposer.base_url)
    except EgressError as error:
        faults.append(Fault("proposer.api_key_env", str(error)))
    listed: Mapping[str, Price] = {}
    if proposer.prices is not None:
        try:
            listed = read_prices(confined(proposer.prices))
        except ApportionError as error:
            faults.append(Fault("proposer.prices", str(error)))
    if spec.budget.proposer.dollars is None or proposer.price is not None or faults:
        return faults
    if proposer.prices is None:
        message = "needs the price of the agent's LLM: state proposer.price (US dollars for a million tokens)"
        return [Fault("budget.proposer.dollars", message)]
    if proposer.model is not None and proposer.model not in listed:
        message = f"{proposer.prices} has no price of {proposer.model}; there are {', '.join(sorted(listed))}"
        return [Fault("proposer.prices", message)]
    return []


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
        elif isinstance(model, JudgeModel):
            faults += _check_judge(pipeline, path, model)
        elif isinstance(model, OpenAIModel):
            faults += _check_target(path, model)
    return faults


def _check_target(path: str, model: OpenAIModel) -> list[Fault]:
    """Whether a server may be asked, and with the key that an environment variable holds."""
    faults: list[Fault] = []
    try:
        current().checked_url(model.base_url)
    except EgressError as error:
        faults.append(Fault(f"{path}.base_url", str(error)))
    if model.api_key_env is None:
        return faults
    try:
        current().check_key(model.api_key_env, model.base_url)
    except EgressError as error:
        return [*faults, Fault(f"{path}.api_key_env", str(error))]
    if not os.environ.get(model.api_key_env):
        faults.append(Fault(f"{path}.api_key_env", f"the environment variable {model.api_key_env} is not set"))
    return faults


def _check_fleet_model(model: FleetModel, path: str) -> list[Fault]:
    # Imported here: only studies on a fleet read its file.
    from env.fleet import configured_fleet, plan_memory
    from env.fleet.variants import variants

    try:
        fleet = configured_fleet()
        plan_memory(fleet, [model.model])
        if fleet.checkpoint(model.model) is None and model.parameters is None:
            message = f"the checkpoint of {model.model} is not on this machine, so its size is not known; state it"
            return [Fault(f"{path}.parameters", message)]
        runner = fleet.model(model.model).runner
    except ApportionError as error:
        return [Fault(f"{path}.model", str(error))]
    if (runner == "pooling") is model.draws:
        serves, takes = ("a verifier", "classify, pooling, score or reward") if model.draws else ("text", "chat")
        message = f"{model.model} is served as {serves} (runner: {runner} in {fleet.path}), so api is one of {takes}"
        return [Fault(f"{path}.api", message.replace("one of chat", "chat or completions"))]
    if model.open and not model.draws:
        return [Fault(f"{path}.open", "open knobs are compared by the text they draw a second; a verifier draws none")]
    try:
        for variant in variants(fleet, model.model, model.open) if model.open else ():
            plan_memory(fleet, [variant])
    except ApportionError as error:
        return [Fault(f"{path}.open", str(error))]
    return []


def _verifies(model: ModelSpec) -> bool:
    """Whether it is asked for scores rather than for text."""
    return isinstance(model, OpenAIModel | FleetModel) and not model.draws


def _check_judge(pipeline: PipelineSpec, path: str, judge: JudgeModel) -> list[Fault]:
    inner = pipeline.models.get(judge.model)
    faults: list[Fault] = []
    if inner is None or isinstance(inner, JudgeModel) or _verifies(inner):
        faults.append(Fault(f"{path}.model", f"{judge.model!r} is no model of the pipeline that draws text"))
    for i, message in enumerate(judge.prompt):
        place = f"{path}.prompt[{i}].template"
        try:
            unknown = template_variables(message.template) - {"prompt", "attempt", "partial"}
        except TemplateError as error:
            faults.append(Fault(place, str(error)))
            continue
        faults += [Fault(place, f"a judge sees prompt, attempt and partial, not {name!r}") for name in sorted(unknown)]
    return faults


def _check_data(spec: StudySpec) -> tuple[Splits | None, list[Fault]]:
    try:
        return load_splits(spec.data), []
    except DataError as error:
        field = {"file": "data.path", "inline": "data.rows", "ledger": "data", "pool": "data.gold"}[spec.data.source]
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
        faults += _check_metric(stage, path, splits)
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
    for i, name in enumerate(stage.models):
        model = pipeline.models.get(name)
        if isinstance(model, JudgeModel):
            faults.append(Fault(f"{path}.models[{i}]", f"{name} is a judge, which scores replies and draws none"))
        if isinstance(model, OpenAIModel | FleetModel) and not model.draws:
            faults.append(Fault(f"{path}.models[{i}]", f"{name} is a verifier (api: {model.api}) and draws no text"))
    return (
        faults
        + _check_verifier(pipeline, stage, path)
        + _check_strategies(stage, path)
        + _check_knobs(pipeline, stage, path)
    )


def _check_verifier(pipeline: PipelineSpec, stage: StageSpec, path: str) -> list[Fault]:
    verifier = pipeline.models.get(stage.verifier) if stage.verifier is not None else None
    if not isinstance(verifier, OpenAIModel | FleetModel):
        return []
    if verifier.draws:
        message = f"{stage.verifier} is asked for text (api: {verifier.api}); a verifier has api: classify, pooling, "
        return [Fault(f"{path}.verifier", message + "score or reward")]
    stepwise = [name for name in stage.strategies if {"verifier", "steps"} <= set(STRATEGIES[name].requires)]
    if verifier.api == "score" and stepwise:
        message = f"{', '.join(stepwise)} has partial answers judged, and a cross-encoder (api: score) reads whole ones"
        return [Fault(f"{path}.verifier", f"{message}; take a verifier with api: classify, pooling or reward")]
    return []


def _check_metric(stage: StageSpec, path: str, splits: Splits | None) -> list[Fault]:
    if stage.metric is None or splits is None:
        return []
    if any(stage_answers(stage, example) for example in splits.search):
        return []
    if stage.gold is not None:
        return [Fault(f"{path}.gold", f"no search example has a field {stage.gold!r} with an answer of this stage")]
    message = f"no search example says what {stage.name} should answer: name the field under gold, or add stage_gold"
    return [Fault(f"{path}.metric", message)]


def _check_constraints(spec: StudySpec) -> list[Fault]:
    scored = {stage.name for stage in spec.pipeline.stages if stage.metric is not None}
    known = {stage.name for stage in spec.pipeline.stages}
    return [
        Fault(
            f"constraints.stage_quality.{name}",
            f"{name} has no metric of its own: give the stage one"
            if name in known
            else f"there is no stage {name!r}; there are {', '.join(sorted(known))}",
        )
        for name in spec.constraints.stage_quality
        if name not in scored
    ]


def _check_strategies(stage: StageSpec, path: str) -> list[Fault]:
    faults: list[Fault] = []
    for i, name in enumerate(stage.strategies):
        requires = STRATEGIES[name].requires
        if "verifier" in requires and stage.verifier is None:
            faults.append(Fault(f"{path}.verifier", f"{name} needs a verifier: name the model that scores candidates"))
        if "steps" in requires and stage.step_end is None:
            message = f"{name} searches step by step: state what ends a step of the output"
            faults.append(Fault(f"{path}.step_end", message))
        if "ids" in requires and stage.parser.kind != "ids":
            message = f"{name} joins sets of ids: give the stage a parser of kind ids"
            faults.append(Fault(f"{path}.strategies[{i}]", message))
    return faults


def _check_knobs(pipeline: PipelineSpec, stage: StageSpec, path: str) -> list[Fault]:
    faults: list[Fault] = []
    for name, choices in stage.knobs.items():
        place = f"{path}.knobs.{name}"
        if len({isinstance(value, str) for value in choices}) > 1:
            faults.append(Fault(place, "the choices are of different kinds: all numbers or all texts"))
        for i, value in enumerate(choices):
            fault = knob_fault(stage, name, value)
            strategy, _, own = name.partition(".")
            if fault is None and own and STRATEGIES[strategy].knobs[own].model and value not in pipeline.models:
                fault = f"no model {value!r} under pipeline.models"
            if fault is not None:
                faults.append(Fault(f"{place}[{i}]", fault))
    for name in stage.tokens.per:
        if name not in stage.knobs or any(isinstance(value, str) for value in stage.knobs[name]):
            faults.append(
                Fault(f"{path}.tokens.per.{name}", "tokens are stated for a knob that the stage does not open")
            )
    if stage.critic is not None and stage.critic not in pipeline.models:
        known = ", ".join(pipeline.models)
        faults.append(Fault(f"{path}.critic", f"no model {stage.critic!r} under pipeline.models; there are {known}"))
    return faults


def _check_templates(
    stage: StageSpec, path: str, fields: set[str] | None, earlier: list[str], pipeline: PipelineSpec
) -> list[Fault]:
    faults: list[Fault] = []
    later = {s.name for s in pipeline.stages} - set(earlier)
    knobs = {name for name in stage.knobs if "." not in name}
    templates = [(f"{path}.prompt[{i}].template", m.template, knobs) for i, m in enumerate(stage.prompt)]
    for kind, messages in stage.prompts.items():
        given = knobs | {"prompt", "attempts" if kind == "fuse" else "attempt"}
        templates += [(f"{path}.prompts.{kind}[{i}].template", m.template, given) for i, m in enumerate(messages)]
    for place, template, given in templates:
        try:
            wanted = template_variables(template) - given
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
                stage_settings(stage),
                key=lambda setting, stage=stage: (cost.stage(stage, setting), setting),  # type: ignore[misc]
            )
            for stage in pipeline.stages
        }
    )


def _check_budget(spec: StudySpec) -> list[Fault]:
    options = CostOptions.of(spec.budget.plan)
    faults = profile_faults(spec.pipeline, options)
    if faults:
        return faults
    cost = PlanCost(spec.pipeline, spec.budget.plan.unit, options)
    faults = cost.faults()
    if faults:
        return faults
    faults = _check_search_budget(spec, options)
    if faults:
        return faults
    cheapest = cheapest_allocation(spec.pipeline, cost)
    lowest = cost.allocation(cheapest)
    if lowest <= spec.budget.plan.limit:
        limits = PlanLimits(spec.pipeline, spec.budget.plan, spec.constraints)
        return limits.faults() or limits.binding(cost, spec.budget.plan.limit)
    message = (
        f"{spec.budget.plan.limit:g} {cost.unit} per query is below the cheapest allocation, "
        f"{lowest:.6g} {cost.unit} ({cheapest}); raise it to at least that"
    )
    return [Fault("budget.plan.limit", message)]


def _check_search_budget(spec: StudySpec, options: CostOptions) -> list[Fault]:
    """A limit in money needs the price of every model that may be asked."""
    if spec.budget.search.dollars is None:
        return []
    lacking = PlanCost(spec.pipeline, "dollars", options).faults()
    return [Fault(fault.path, f"budget.search.dollars: {fault.message}") for fault in lacking]
