"""The study form: shown, sent, and shown again with every fault beside its field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.dependencies import ArchiveDep, RuntimeDep, StudyDep
from api.pages.form_fields import study_form
from api.pages.form_values import PlacedFaults, checked_spec, filled, place, submitted
from api.pages.rendering import form_texts, render
from api.routes.spec_bodies import demo_data
from env.spec import Fault, SpecError

router = APIRouter(include_in_schema=False)

FormTexts = Annotated[dict[str, str], Depends(form_texts)]


@router.get("/studies/new")
def new_study(
    request: Request,
    archive: ArchiveDep,
    like: Annotated[str, Query(max_length=64, description="A study to begin from; the demo where empty.")] = "",
) -> HTMLResponse:
    """The form, filled with the demo study or another one."""
    raw = dict(archive.studies.find(like).spec) if like else demo_data()
    return _form(request, filled(study_form(), raw))


@router.post("/studies/new")
def submit_study(request: Request, texts: FormTexts, runtime: RuntimeDep) -> Response:
    """Queue the study of a form, or show the form again with its faults."""
    values = submitted(study_form(), texts)
    try:
        spec = checked_spec(study_form(), values)
    except SpecError as error:
        return _form(request, values, error.faults)
    study = runtime.submit(spec)
    return RedirectResponse(f"/studies/{study.id}", 303)


@router.post("/studies/{study_id}/cancel", dependencies=[Depends(form_texts)])
def cancel_study(study: StudyDep, runtime: RuntimeDep) -> RedirectResponse:
    """Ask a study to stop."""
    runtime.cancel(study.id)
    return RedirectResponse(f"/studies/{study.id}", 303)


def _form(request: Request, values: Mapping[str, str], faults: Sequence[Fault] = ()) -> HTMLResponse:
    form = study_form()
    placed = place(form, faults, values) if faults else PlacedFaults()
    return render(request, "study_form.html", 422 if faults else 200, form=form, values=values, placed=placed)
