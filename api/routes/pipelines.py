"""Pipelines to look at and to use again in another spec."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path

from api.demo import demo_spec
from api.dependencies import NO_NUL, ArchiveDep
from api.paging import PagingDep
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from api.schemas import Page, PipelineDetail, PipelinePublic
from api.schemas.pipelines import pipeline_values
from planner.archive import NotFound
from planner.archive.pipelines import pipeline_digest

router = APIRouter(prefix="/pipelines", tags=["pipelines"], responses=PROBLEMS)


@router.get("")
def list_pipelines(archive: ArchiveDep, paging: PagingDep) -> Page[PipelinePublic]:
    """Pipelines that studies have used, by content, the most recently used first."""
    records = archive.pipelines.page(paging.wanted, paging.after(datetime, str))
    return paging.page(
        records,
        lambda record: (record.last_used, record.digest),
        lambda record: PipelinePublic.of(record, archive.pipelines.names(record.digest)),
    )


@router.get("/bundled")
def list_bundled_pipelines() -> list[PipelineDetail]:
    """Pipelines that ship with Apportion and run on its embedded models."""
    return [_bundled()]


@router.get("/{digest}", responses=NOT_FOUND)
def get_pipeline(digest: Annotated[str, Path(max_length=64, pattern=NO_NUL)], archive: ArchiveDep) -> PipelineDetail:
    """One pipeline with its content, to use as a part of a spec."""
    try:
        record = archive.pipelines.get(digest)
    except NotFound:
        bundled = _bundled()
        if bundled.digest == digest:
            return bundled
        raise
    values = pipeline_values(digest, record.pipeline, archive.pipelines.names(digest), record)
    return PipelineDetail(**values, pipeline=dict(record.pipeline))


def _bundled() -> PipelineDetail:
    # With all defaults written out, as the archive has it: the digest is that of studies on it.
    pipeline = demo_spec().model_dump(mode="json")["pipeline"]
    digest = pipeline_digest({"pipeline": pipeline})
    values = pipeline_values(digest, pipeline, [str(pipeline["name"])])
    return PipelineDetail(**values, pipeline=pipeline)
