"""Studies: submitting, finding and following them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import AfterValidator, AwareDatetime

from api.bodies import check_plain, usable_spec
from api.dependencies import NO_NUL, ArchiveDep, RuntimeDep, StudyDep
from api.etags import CONDITIONAL, conditional
from api.merging import merged
from api.paging import PagingDep
from api.problems import Problem, Refused
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS, SPEC_BODY, UNSUPPORTED, RawSpecDep
from api.schemas import Page, StudyClone, StudyDetail, StudyPublic
from env.spec import StudySpec
from planner.archive import Archive, NotFound, StudyFilter, StudyRecord, StudyStatus
from planner.archive.studies import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY
from planner.durable import Runtime
from planner.plans import PlanDocument

router = APIRouter(prefix="/studies", tags=["studies"], responses=PROBLEMS)

IdempotencyKey = Annotated[
    str | None,
    Header(pattern=r"^[\x21-\x7e]{1,200}$", description="The same key gives the same study, however often it is sent."),
]
KEY_USED: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "The Idempotency-Key was used for another spec, or the id is ambiguous."}
}
NOT_ENDED: dict[int | str, dict[str, Any]] = {
    409: {
        "model": Problem,
        "description": "The study has not ended, or its plan is served under a name.",
    }
}
ExactId = Annotated[str, Path(max_length=200, pattern=NO_NUL, description="The study's whole id.")]

Priority = Annotated[
    int,
    Query(
        ge=HIGHEST_PRIORITY,
        le=LOWEST_PRIORITY,
        description="Studies of a queue with a lower one are started first; equal ones in order of submission.",
    ),
]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from error


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Word = Annotated[str | None, Query(max_length=200, pattern=NO_NUL)]


def study_filter(
    status: Annotated[list[StudyStatus], Query(max_length=10, description="One of these.")] = [],  # noqa: B006
    name: Annotated[str, Query(max_length=64, pattern=NO_NUL, description="Part of the name.")] = "",
    q: Annotated[
        str,
        Query(max_length=200, pattern=NO_NUL, description="Words, each of them part of the name, the notes or the id."),
    ] = "",
    schedule: Word = None,
    proposer: Word = None,
    pipeline: Annotated[str | None, Query(max_length=64, pattern=NO_NUL, description="Digest of the pipeline.")] = None,
    created_from: Annotated[Moment | None, Query(description="With a time zone.")] = None,
    created_before: Annotated[Moment | None, Query(description="With a time zone; exclusive.")] = None,
) -> StudyFilter:
    """Which studies a list wants."""
    return StudyFilter(tuple(status), name, q, schedule, proposer, pipeline, created_from, created_before)


StudyFilterDep = Annotated[StudyFilter, Depends(study_filter)]


@router.post("", status_code=201, openapi_extra=SPEC_BODY, responses={**KEY_USED, **UNSUPPORTED})
def submit(
    body: RawSpecDep,
    runtime: RuntimeDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    priority: Priority = DEFAULT_PRIORITY,
) -> StudyPublic:
    """Check a spec completely and queue it as a study."""
    return _queue(runtime, usable_spec(body.read()), response, idempotency_key, priority)


@router.get("")
def list_studies(archive: ArchiveDep, paging: PagingDep, wanted: StudyFilterDep) -> Page[StudyPublic]:
    """List studies, newest first. Parameters narrow the list; one that is given twice (`status`) takes either."""
    records = archive.studies.page(paging.wanted, wanted, paging.after(datetime, str), specs=False)
    return paging.page(records, lambda study: (study.created_at, study.id), StudyPublic.of)


@router.get("/{study_id}", response_model=StudyDetail, responses={**NOT_FOUND, **CONDITIONAL})
def get_study(request: Request, study: StudyDep, archive: ArchiveDep) -> Response:
    """One study with its spec, its progress and its plan in a line."""
    return conditional(request, detail_of(archive, study))


@router.post("/{study_id}/clone", status_code=201, responses={**NOT_FOUND, **KEY_USED})
def clone_study(
    study: StudyDep,
    runtime: RuntimeDep,
    response: Response,
    body: StudyClone | None = None,
    idempotency_key: IdempotencyKey = None,
) -> StudyPublic:
    """Queue a new study with the spec of another, parts of it changed where asked."""
    raw = merged(dict(study.spec), body.overrides if body else {})
    check_plain(raw)
    return _queue(runtime, usable_spec(raw), response, idempotency_key)


@router.delete("/{study_id}", status_code=204, responses={**NOT_FOUND, **NOT_ENDED})
def delete_study(study_id: ExactId, archive: ArchiveDep) -> None:
    """Delete a study that has ended, by its whole id: its trials, evidence, proposals, events and plan.

    Its draws stay in the bank, for other studies to use; `apportion bank prune` removes those nobody refers to.
    """
    archive.studies.delete(study_id)


@router.get(
    "/{study_id}/plan",
    response_model=PlanDocument,
    responses={**NOT_FOUND, 200: {"content": {"application/yaml": {"schema": {"type": "object"}}}}},
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


def _queue(
    runtime: Runtime, spec: StudySpec, response: Response, key: str | None, priority: int = DEFAULT_PRIORITY
) -> StudyPublic:
    # Keys of clients and of schedules live in one column; the prefix keeps them apart.
    study = runtime.submit(spec, None if key is None else f"client/{key}", priority)
    if dict(study.spec) != spec.model_dump(mode="json"):
        raise Refused(409, f"the Idempotency-Key was used for study {study.id}, which has another spec")
    answer = StudyPublic.of(study)
    response.headers["Location"] = answer.links["self"]
    return answer


def detail_of(archive: Archive, study: StudyRecord) -> StudyDetail:
    """A study with its progress and its plan in a line."""
    draws = archive.ledgers.usage(study.id, "search").settled
    trials = archive.trials.count(study.id, "search")
    ended = archive.events.latest(study.id, "stop")
    stopped = "" if ended is None else str(ended.payload["message"])
    return StudyDetail.with_progress(study, trials, draws, plan_of(archive, study.id), stopped)


def plan_of(archive: Archive, study_id: str) -> PlanDocument | None:
    """A study's chosen plan; None while it has none."""
    try:
        return PlanDocument.model_validate(dict(archive.plans.get(study_id).document))
    except NotFound:
        return None
