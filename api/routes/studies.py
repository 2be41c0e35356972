"""Studies: submitting, finding, following and cancelling them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from api.bodies import usable_spec
from api.dependencies import ArchiveDep, RuntimeDep, StudyDep
from api.problems import Problem, Refused
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS, SPEC_BODY, RawSpecDep
from api.schemas import (
    GuidelinePublic,
    ProposalPublic,
    StudyDetail,
    StudyPage,
    StudyPublic,
    TrialDetail,
    TrialPublic,
)
from planner.archive import Archive, NotFound, StudyStatus
from planner.plans import PlanDocument

router = APIRouter(prefix="/studies", tags=["studies"], responses=PROBLEMS)

Split = Literal["search", "test", "revalidation"]
IdempotencyKey = Annotated[
    str | None,
    Header(pattern=r"^[\x21-\x7e]{1,200}$", description="The same key gives the same study, however often it is sent."),
]


@router.post(
    "",
    status_code=201,
    openapi_extra=SPEC_BODY,
    responses={409: {"model": Problem, "description": "The key was used for another spec."}},
)
def submit(
    body: RawSpecDep, runtime: RuntimeDep, response: Response, idempotency_key: IdempotencyKey = None
) -> StudyPublic:
    """Check a spec completely and queue it as a study."""
    spec = usable_spec(body.read())
    # Keys of clients and of schedules live in one column; the prefix keeps them apart.
    study = runtime.submit(spec, None if idempotency_key is None else f"client/{idempotency_key}")
    if dict(study.spec) != spec.model_dump(mode="json"):
        raise Refused(409, f"the Idempotency-Key was used for study {study.id}, which has another spec")
    answer = StudyPublic.of(study)
    response.headers["Location"] = answer.links["self"]
    return answer


@router.get("")
def list_studies(
    archive: ArchiveDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(max_length=64, description="Id of the last study of the page before.")] = None,
    status: StudyStatus | None = None,
    name: Annotated[str, Query(max_length=64, description="Part of the name.")] = "",
) -> StudyPage:
    """List studies, newest first."""
    records = archive.studies.list(limit + 1, before, status, name)
    following = records[limit - 1].id if len(records) > limit else None
    return StudyPage(studies=[StudyPublic.of(record) for record in records[:limit]], next_before=following)


@router.get("/{study_id}", responses=NOT_FOUND)
def get_study(study: StudyDep, archive: ArchiveDep) -> StudyDetail:
    """One study with its spec, its progress and its plan in a line."""
    draws = archive.ledgers.usage(study.id, "search").settled
    trials = len(archive.trials.list(study.id, "search", curves=False))
    ended = archive.events.latest(study.id, "stop")
    stopped = "" if ended is None else str(ended.payload["message"])
    return StudyDetail.with_progress(study, trials, draws, plan_of(archive, study.id), stopped)


@router.get("/{study_id}/trials", responses=NOT_FOUND)
def list_trials(study: StudyDep, archive: ArchiveDep, split: Split | None = None) -> list[TrialPublic]:
    """Trials of a study by number: of the search, on the sealed test split, and those that re-validated its plan."""
    return [TrialPublic.of(record) for record in archive.trials.list(study.id, split)]


@router.get("/{study_id}/trials/{trial_no}", responses=NOT_FOUND)
def get_trial(study: StudyDep, trial_no: int, archive: ArchiveDep) -> TrialDetail:
    """One trial with its evidence for every example."""
    return TrialDetail.with_evidence(
        archive.trials.get(study.id, trial_no), archive.trials.evidence(study.id, trial_no)
    )


@router.get("/{study_id}/proposals", responses=NOT_FOUND)
def list_proposals(study: StudyDep, archive: ArchiveDep, round: int | None = None) -> list[ProposalPublic]:
    """Everything that was suggested, and what review said."""
    return [ProposalPublic.of(record) for record in archive.proposals.list(study.id, round)]


@router.get("/{study_id}/guidelines", responses=NOT_FOUND)
def list_guidelines(study: StudyDep, archive: ArchiveDep, round: int | None = None) -> list[GuidelinePublic]:
    """What the rounds taught."""
    return [GuidelinePublic.of(record) for record in archive.guidelines.list(study.id, round)]


@router.get(
    "/{study_id}/plan",
    response_model=PlanDocument,
    responses={**NOT_FOUND, 200: {"content": {"application/yaml": {"schema": {"type": "string"}}}}},
)
def get_plan(
    request: Request,
    study: StudyDep,
    archive: ArchiveDep,
    kind: Annotated[
        Literal["chosen", "best"], Query(description="The cheapest within one standard error of the best, or the best.")
    ] = "chosen",
    format: Annotated[Literal["json", "yaml"] | None, Query(description="Else as the Accept header asks.")] = None,
) -> Response:
    """The plan with its evidence, as JSON or YAML."""
    document = PlanDocument.model_validate(dict(archive.plans.get(study.id, kind).document))
    wants_yaml = format == "yaml" or (format is None and "yaml" in request.headers.get("accept", ""))
    if wants_yaml:
        return PlainTextResponse(document.to_yaml(), media_type="application/yaml", headers={"Vary": "Accept"})
    return JSONResponse(document.model_dump(mode="json"), headers={"Vary": "Accept"})


@router.post("/{study_id}/cancel", status_code=202, responses=NOT_FOUND)
def cancel(study: StudyDep, runtime: RuntimeDep) -> StudyPublic:
    """Ask a study to stop; what it drew is kept. One that has ended stays as it is."""
    return StudyPublic.of(runtime.cancel(study.id))


def plan_of(archive: Archive, study_id: str) -> PlanDocument | None:
    """A study's chosen plan; None while it has none."""
    try:
        return PlanDocument.model_validate(dict(archive.plans.get(study_id).document))
    except NotFound:
        return None
