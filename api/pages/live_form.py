"""What the study form says while it is filled: faults by field, the spec as YAML, the forecast, each stage's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from api.bodies import check_plain, read_yaml, usable_spec
from api.dependencies import ArchiveDep
from api.pages.form_fields import study_form
from api.pages.form_values import checked_spec, filled, place, submitted, yaml_of
from api.pages.rendering import FRESH, form_texts
from env.errors import ApportionError
from env.spec import Fault, SpecError, StudySpec
from planner.archive import Archive
from planner.forecast import forecast
from planner.plans import amount
from planner.plans.wording import count
from planner.rates import measured_rates

router = APIRouter(prefix="/studies/new", include_in_schema=False)

FormTexts = Annotated[dict[str, str], Depends(form_texts)]

LEDGERS = {"search": "The search", "test": "The sealed test"}


@router.post("/check")
def check(texts: FormTexts, archive: ArchiveDep) -> JSONResponse:
    """The fields as they stand: their faults, the same as YAML, the forecast; nothing is queued.

    `choose_stage` and `choose_models` (commas between) change the models of a stage in the pipeline's text first.
    """
    form = study_form()
    values = submitted(form, texts)
    stage = texts.get("choose_stage", "")
    if stage:
        chosen = [name for name in texts.get("choose_models", "").split(",") if name]
        values["pipeline"] = with_models(values["pipeline"], stage, chosen)
    answer: dict[str, Any] = {"yaml": yaml_of(form, values), "pipeline": values["pipeline"], "faults": []}
    try:
        spec = checked_spec(form, values)
        answer["forecast"] = forecast_lines(archive, spec)
    except SpecError as error:
        placed = place(form, error.faults, values)
        answer["faults"] = [{"id": id, "path": f.path, "message": f.message} for id, f in placed.summary]
    answer["stages"] = stages_of(values["pipeline"])
    return JSONResponse(answer, headers=FRESH)


@router.post("/fill")
def fill(texts: FormTexts, archive: ArchiveDep) -> JSONResponse:
    """The fields for a spec in YAML; without `values` where it cannot be read, so that nothing typed is lost."""
    form = study_form()
    answer: dict[str, Any] = {"faults": []}
    try:
        raw = read_yaml(texts.get("spec_yaml", ""))
        check_plain(raw)
        if not isinstance(raw, dict):
            raise SpecError([Fault("", "a study spec is an object with name, pipeline, data and budget")])
    except SpecError as error:
        answer["faults"] = [{"id": "", "path": f.path, "message": f.message} for f in error.faults]
        return JSONResponse(answer, headers=FRESH)
    values = answer["values"] = filled(form, raw)
    answer["stages"] = stages_of(values.get("pipeline", ""))
    try:
        answer["forecast"] = forecast_lines(archive, usable_spec(raw))
    except SpecError as error:
        placed = place(form, error.faults, values)
        answer["faults"] = [{"id": id, "path": f.path, "message": f.message} for id, f in placed.summary]
    return JSONResponse(answer, headers=FRESH)


def forecast_lines(archive: Archive, spec: StudySpec) -> list[str]:
    """The forecast of a usable spec as sentences."""
    try:
        found = forecast(spec, measured_rates(archive, spec))
    except ApportionError as error:
        return [f"No forecast: {error}"]
    most = "at least " if found.allocations >= 300_000 else ""
    lines = [
        f"{most}{count(found.allocations, 'allocation')} fit the budget of one query.",
        f"{count(found.trials, 'trial')} are expected, {count(found.most_trials)} at most.",
    ]
    for ledger in found.ledgers:
        if ledger.expected is None:
            continue
        limit = f" of at most {amount(ledger.limit, ledger.unit)}" if ledger.limit is not None else ""
        lines.append(f"{LEDGERS[ledger.ledger]} spends about {amount(ledger.expected, ledger.unit)}{limit}.")
    if found.proposer_tokens is not None:
        lines.append(f"The agent's LLM uses at most {count(found.proposer_tokens, 'token')}.")
    return [*lines, *found.notes]


def stages_of(pipeline: str) -> list[dict[str, Any]]:
    """Each stage of a pipeline's text with the models it may use, as far as the text can be read."""
    raw = _plain(pipeline)
    models = raw.get("models")
    offered = [str(name) for name in models] if isinstance(models, Mapping) else []
    found = []
    for stage in raw.get("stages") or []:
        if isinstance(stage, Mapping) and isinstance(stage.get("models"), list):
            found.append({"stage": str(stage.get("name", "")), "models": stage["models"], "offered": offered})
    return found


def with_models(pipeline: str, stage: str, models: Sequence[str]) -> str:
    """A pipeline's text with the models of one stage replaced, all else as it was typed, comments included."""
    try:
        root = yaml.compose(pipeline, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return pipeline
    for node in _items(_entry(root, "stages")):
        name, place = _entry(node, "name"), _entry(node, "models")
        if isinstance(name, yaml.ScalarNode) and name.value == stage and isinstance(place, yaml.SequenceNode):
            start, end = place.start_mark.index, place.end_mark.index
            written = yaml.safe_dump(list(models), default_flow_style=True, width=10_000).strip()
            if place.flow_style:
                return pipeline[:start] + written + pipeline[end:]
            # A block begins on the line after its key and ends where what follows it begins.
            tail = pipeline[start:end]
            return f"{pipeline[:start].rstrip()} {written}{tail[len(tail.rstrip()) :]}{pipeline[end:]}"
    return pipeline


def _plain(text: str) -> Mapping[str, Any]:
    try:
        raw = read_yaml(text)
    except SpecError:
        return {}
    return raw if isinstance(raw, Mapping) else {}


def _entry(node: Any, key: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _items(node: Any) -> list[Any]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
