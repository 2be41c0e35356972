"""Plans: listing, comparing, and the names they are served under."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.dependencies import ArchiveDep
from api.paging import PagingDep
from api.problems import Problem, Refused
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from api.schemas import Page, PlanDetail, PlanPromote, PlanPublic, PromotionPublic
from api.schemas.plans import PlanName
from env.errors import ApportionError
from env.spec import Fault
from planner.archive import Archive, NotFound, PlanKind, PlanRecord, PromotionRecord
from planner.export import EVERY_FILE, ExportFormat, export_files, zipped
from planner.serving import PlanDiff, PlanReference, find_plan, plan_diff

EXPORT_TYPES: dict[ExportFormat, str] = {
    "yaml": "application/yaml",
    "vllm": "application/x-sh",
    "langgraph": "text/x-python",
    "zip": "application/zip",
}

router = APIRouter(prefix="/plans", tags=["plans"], responses=PROBLEMS)

PlanId = Annotated[
    str,
    Path(
        max_length=300,
        description="A promoted name, a study's id, the unique start of it or its exact name; with :best behind it for "
        "the best-scoring plan.",
    ),
]
Name = Annotated[PlanName, Path(description="The name that clients ask for.")]


@router.get("")
def list_plans(
    archive: ArchiveDep,
    paging: PagingDep,
    kind: Annotated[PlanKind | None, Query(description="Only chosen, or only best-scoring plans.")] = None,
    name: Annotated[str, Query(max_length=64, description="Part of the study's name.")] = "",
) -> Page[PlanPublic]:
    """List plans, newest first."""
    records = archive.plans.page(paging.wanted, paging.after(datetime, str, str), kind, name)
    names = names_of(archive)
    return paging.page(
        records,
        lambda one: (one[0].created_at, one[0].study_id, one[0].kind),
        lambda one: PlanPublic.of(one[0], one[1], names.get(one[0].id, [])),
    )


@router.get("/{plan_id}", responses=NOT_FOUND)
def get_plan_detail(plan_id: PlanId, archive: ArchiveDep) -> PlanDetail:
    """One plan with its evidence."""
    record = plan_named(archive, plan_id)
    study = archive.studies.get(record.study_id).name
    return PlanDetail.with_document(record, study, names_of(archive).get(record.id, []))


@router.get("/{plan_id}/diff/{other_id}", responses=NOT_FOUND)
def diff_plans(plan_id: PlanId, other_id: PlanId, archive: ArchiveDep) -> PlanDiff:
    """What changes from the first plan to the second."""
    return plan_diff(archive, plan_named(archive, plan_id), plan_named(archive, other_id))


@router.get(
    "/{plan_id}/export",
    response_class=Response,
    responses={
        **NOT_FOUND,
        409: {"model": Problem, "description": "A stage cannot be written as plain Python; the detail names it."},
        200: {"content": {kind: {"schema": {"type": "string"}} for kind in EXPORT_TYPES.values()}},
    },
)
def export_plan(
    plan_id: PlanId,
    archive: ArchiveDep,
    format: Annotated[ExportFormat, Query(description="One file, or all of them.")] = "zip",
    remote: Annotated[
        bool, Query(description="Stages that plain Python cannot hold may ask this service's plan endpoint.")
    ] = False,
) -> Response:
    """A plan as files that run without this program: plan.yaml, serve.sh with vLLM's lines, plan.py on LangGraph."""
    record = plan_named(archive, plan_id)
    files = export_files(archive, record, EVERY_FILE if format == "zip" else (format,), remote)
    name = f"plan-{record.id.replace(':', '-')}.zip" if format == "zip" else next(iter(files))
    content = zipped(files) if format == "zip" else files[name].encode()
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, media_type=EXPORT_TYPES[format], headers=headers)


@router.get("/{name}/history", responses=NOT_FOUND)
def name_history(name: Name, archive: ArchiveDep) -> list[PromotionPublic]:
    """What a name stood for, newest first."""
    history = archive.promotions.history(name)
    if not history:
        raise NotFound(f"no plan was promoted as {name!r}; list the plans to see what there is")
    return [PromotionPublic.of(record) for record in history]


@router.post(
    "/{name}/promote",
    responses={**NOT_FOUND, 409: {"model": Problem, "description": "The name is the id of another study."}},
)
def promote_plan(name: Name, body: PlanPromote, archive: ArchiveDep, request: Request) -> PromotionPublic:
    """Let a name stand for a plan from now on. Rolling back is promoting an earlier plan again."""
    return PromotionPublic.of(promote(archive, name, body.plan, request.state.caller.name))


def promote(archive: Archive, name: str, plan: str, by: str) -> PromotionRecord:
    """Check a promotion and enter it.

    Raises:
        Refused: the name is the id of a study, which clients would no longer reach.
        NotFound: there is no such plan.
    """
    record = plan_named(archive, plan)
    try:
        archive.studies.get(name)
    except NotFound:
        return archive.promotions.promote(name, record.study_id, record.kind, by)
    raise Refused(409, f"{name!r} is the id of a study; choose a name that is none")


def plan_named(archive: Archive, text: str) -> PlanRecord:
    """The plan a person means.

    Raises:
        NotFound: there is none.
        Refused: the text names no plan.
    """
    reference = _reference(text)
    if reference.budget is not None:
        raise Refused(422, "a plan is meant here, not a point of its front: leave @budget out")
    return find_plan(archive, reference, loosely=True)


def names_of(archive: Archive) -> dict[str, list[str]]:
    """By plan id the names that stand for it now."""
    found: dict[str, list[str]] = {}
    for promotion in archive.promotions.current():
        found.setdefault(promotion.plan_id, []).append(promotion.name)
    return found


def _reference(text: str) -> PlanReference:
    try:
        return PlanReference.parse(text)
    except ApportionError as error:
        raise Refused(422, str(error), [Fault("plan", str(error))]) from None
