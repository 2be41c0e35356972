"""The study form: shown, sent, and shown again with every fault beside its field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import yaml
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.bodies import check_plain, read_yaml, usable_spec
from api.demo import EXAMPLES, example_yaml
from api.dependencies import ArchiveDep, RuntimeDep, StudyDep
from api.pages.form_fields import study_form
from api.pages.form_values import PlacedFaults, checked_spec, filled, place, submitted, yaml_of
from api.pages.rendering import form_texts, render
from api.problems import Refused
from env.spec import Fault, SpecError, StudySpec
from planner.archive import Archive

SHOWN_DATASETS = 200

router = APIRouter(include_in_schema=False)

FormTexts = Annotated[dict[str, str], Depends(form_texts)]


@router.get("/studies/new")
def new_study(
    request: Request,
    archive: ArchiveDep,
    like: Annotated[str, Query(max_length=64, description="A study to begin from.")] = "",
    example: Annotated[str, Query(max_length=64, description="A bundled study to begin from.")] = "ledger",
) -> HTMLResponse:
    """The form, filled with a bundled study or another one."""
    if like:
        raw = dict(archive.studies.find(like).spec)
    elif example in EXAMPLES:
        raw = yaml.safe_load(example_yaml(example))
    else:
        raise Refused(404, f"there is no bundled study {example!r}; there are {', '.join(EXAMPLES)}")
    return _form(request, archive, filled(study_form(), raw), example="" if like else example, like=like)


@router.post("/studies/new")
def submit_study(request: Request, texts: FormTexts, runtime: RuntimeDep) -> Response:
    """Queue the study of a form, or show the form again with its faults."""
    values = submitted(study_form(), texts)
    written = texts.get("spec_yaml", "").replace("\r\n", "\n")
    from_yaml = texts.get("source") == "yaml"
    try:
        spec = _spec_in(written) if from_yaml else checked_spec(study_form(), values)
    except SpecError as error:
        return _form(request, runtime.archive, values, error.faults, written if from_yaml else None)
    study = runtime.submit(spec)
    return RedirectResponse(f"/studies/{study.id}", 303)


def _spec_in(text: str) -> StudySpec:
    raw = read_yaml(text)
    check_plain(raw)
    return usable_spec(raw)


@router.post("/studies/{study_id}/cancel", dependencies=[Depends(form_texts)])
def cancel_study(study: StudyDep, runtime: RuntimeDep) -> RedirectResponse:
    """Ask a study to stop."""
    runtime.cancel(study.id)
    return RedirectResponse(f"/studies/{study.id}", 303)


def _form(
    request: Request,
    archive: Archive,
    values: Mapping[str, str],
    faults: Sequence[Fault] = (),
    written: str | None = None,
    **begun: str,
) -> HTMLResponse:
    """The form; `written` is the YAML that was sent, where that is what counts."""
    form = study_form()
    placed = place(form, faults, values) if faults else PlacedFaults()
    return render(
        request,
        "study_form.html",
        422 if faults else 200,
        form=form,
        values=values,
        placed=placed,
        written=yaml_of(form, values) if written is None else written,
        from_yaml=written is not None,
        examples=EXAMPLES,
        example=begun.get("example", ""),
        like=begun.get("like", ""),
        datasets=archive.datasets.page(SHOWN_DATASETS),
    )
