"""Pipelines: the distinct ones of all studies, by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import col, func, or_, select

from planner.archive.errors import NotFound
from planner.archive.sessions import Sessions
from planner.archive.tables import StudyRow

_DIGITS = 16


def pipeline_digest(spec: Mapping[str, Any]) -> str:
    """Hexadecimal name of a spec's pipeline: equal where models, stages and metric are, whatever its name.

    Empty where the spec has no pipeline.
    """
    pipeline = spec.get("pipeline")
    if not isinstance(pipeline, Mapping):
        return ""
    content = {name: value for name, value in pipeline.items() if name != "name"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


@dataclass(frozen=True)
class PipelineRecord:
    """One pipeline that studies have used."""

    digest: str
    pipeline: Mapping[str, Any]
    """As the newest of its studies states it."""

    studies: int
    last_study: str
    last_used: datetime


class Pipelines:
    """The pipelines of an archive's studies; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def page(self, limit: int, after: tuple[datetime, str] | None = None) -> list[PipelineRecord]:
        """Distinct pipelines, the most recently used first, at most `limit`.

        Args:
            limit: how many at most.
            after: last use and digest of the last one of the page before.
        """
        used = func.max(col(StudyRow.created_at))
        query = (
            select(StudyRow.pipeline_digest, func.count(), used)
            .where(StudyRow.pipeline_digest != "")
            .group_by(col(StudyRow.pipeline_digest))
            .order_by(used.desc(), col(StudyRow.pipeline_digest).desc())
            .limit(limit)
        )
        if after is not None:
            moment, digest = after
            query = query.having(or_(used < moment, (used == moment) & (col(StudyRow.pipeline_digest) < digest)))
        with self._sessions.read() as session:
            groups = session.exec(query).all()
        return [self._read(digest, count) for digest, count, _ in groups]

    def get(self, digest: str) -> PipelineRecord:
        """One pipeline.

        Raises:
            NotFound: no study has used it.
        """
        return self._read(digest, None)

    def names(self, digest: str) -> list[str]:
        """Under which names studies ran a pipeline, most used first; at most ten."""
        name = StudyRow.spec["pipeline"]["name"].as_string()
        query = select(name, func.count()).where(StudyRow.pipeline_digest == digest).group_by(name)
        with self._sessions.read() as session:
            return [str(row[0]) for row in session.exec(query.order_by(func.count().desc(), name).limit(10))]

    def _read(self, digest: str, count: int | None) -> PipelineRecord:
        newest = select(StudyRow).where(StudyRow.pipeline_digest == digest, StudyRow.pipeline_digest != "")
        order = (col(StudyRow.created_at).desc(), col(StudyRow.id).desc())
        with self._sessions.read() as session:
            row = session.exec(newest.order_by(*order).limit(1)).first()
            if row is None:
                raise NotFound(f"no study has used a pipeline {digest!r}; list the pipelines to see what there is")
            if count is None:
                count = session.exec(select(func.count()).where(StudyRow.pipeline_digest == digest)).one()
            return PipelineRecord(digest, row.spec["pipeline"], count, row.id, row.created_at)
