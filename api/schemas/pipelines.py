"""Pipelines that studies have used, and bundled ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.base import Public
from planner.archive.pipelines import PipelineRecord


class PipelineStagePublic(Public):
    """One stage at a glance."""

    name: str
    models: list[str]
    strategies: list[str]


class PipelinePublic(Public):
    """One pipeline; the same content under several names is one."""

    digest: str
    names: list[str] = Field(description="Most used first, at most ten.")
    stages: list[PipelineStagePublic]
    models: list[str]
    metric: str
    studies: int = Field(description="That have used it.")
    last_study: str | None
    last_used: datetime | None
    links: dict[str, str]

    @classmethod
    def of(cls, record: PipelineRecord, names: Sequence[str]) -> PipelinePublic:
        """From the archive's record."""
        return cls(**pipeline_values(record.digest, record.pipeline, names, record))


class PipelineDetail(PipelinePublic):
    """A pipeline with its content."""

    pipeline: dict[str, Any] = Field(description="Use this as `pipeline` of a spec.")


def pipeline_values(
    digest: str, pipeline: Mapping[str, Any], names: Sequence[str], record: PipelineRecord | None = None
) -> dict[str, Any]:
    """What is answered of a pipeline."""
    stages = [stage for stage in pipeline.get("stages", ()) if isinstance(stage, Mapping)]
    return {
        "digest": digest,
        "names": list(names),
        "stages": [
            PipelineStagePublic(
                name=str(stage.get("name", "")),
                models=[str(model) for model in stage.get("models") or ()],
                strategies=[str(strategy) for strategy in stage.get("strategies") or ()],
            )
            for stage in stages
        ],
        "models": [str(name) for name in pipeline.get("models") or ()],
        "metric": str(pipeline.get("metric", "")),
        "studies": record.studies if record else 0,
        "last_study": record.last_study if record else None,
        "last_used": record.last_used if record else None,
        "links": {"self": f"/api/v1/pipelines/{digest}", "studies": f"/api/v1/studies?pipeline={digest}"},
    }
