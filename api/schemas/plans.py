"""Plans, and the names they are served under."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from api.schemas.base import AllocationPublic, Public
from planner.archive import PlanKind, PlanRecord, PromotionRecord
from planner.plans import PlanDocument
from planner.serving.reference import NAME

PlanName = Annotated[str, StringConstraints(pattern=rf"^{NAME}$")]


class PlanPublic(Public):
    """A plan in a few lines. Times are in UTC."""

    id: str = Field(description="The study's id, with :best behind it for the best-scoring plan.")
    study_id: str
    study: str = Field(description="The study's name.")
    kind: PlanKind
    names: list[str] = Field(description="Names that stand for this plan now.")
    allocation: AllocationPublic
    unit: str
    predicted_cost: float = Field(description="Per query.")
    budget: float = Field(description="Per query.")
    test_score: float | None = Field(description="Null where the test split could not be evaluated.")
    test_low: float | None
    test_high: float | None
    created_at: datetime
    links: dict[str, str]

    @classmethod
    def of(cls, record: PlanRecord, study: str, names: list[str]) -> PlanPublic:
        """From the archive's record."""
        # As it was checked when it was stored: to check 200 whole documents anew takes longer than to read them.
        document = record.document
        test = document["test_score"]
        base = f"/api/v1/plans/{record.id}"
        return cls(
            id=record.id,
            study_id=record.study_id,
            study=study,
            kind=record.kind,
            names=names,
            allocation=document["allocation"],
            unit=document["unit"],
            predicted_cost=document["predicted_cost"],
            budget=document["budget"],
            test_score=None if test is None else test["estimate"],
            test_low=None if test is None else test["low"],
            test_high=None if test is None else test["high"],
            created_at=record.created_at,
            links={"self": base, "export": f"{base}/export", "page": f"/plans/{record.id}"},
        )


class PlanDetail(PlanPublic):
    """A plan with its document."""

    document: PlanDocument

    @classmethod
    def with_document(cls, record: PlanRecord, study: str, names: list[str]) -> PlanDetail:
        """From the archive's record."""
        plain = PlanPublic.of(record, study, names)
        return cls(**plain.model_dump(), document=PlanDocument.model_validate(dict(record.document)))


class PlanPromote(Public):
    """Which plan a name is to stand for."""

    plan: str = Field(
        min_length=1,
        max_length=300,
        description="A study's id (with :best for its best-scoring plan), or another name.",
    )


class PromotionPublic(Public):
    """One moment at which a name was given to a plan. Times are in UTC."""

    name: str
    plan: str = Field(description="The plan's id.")
    study_id: str
    kind: PlanKind
    promoted_at: datetime
    promoted_by: str

    @classmethod
    def of(cls, record: PromotionRecord) -> PromotionPublic:
        """From the archive's record."""
        return cls(
            name=record.name,
            plan=record.plan_id,
            study_id=record.study_id,
            kind=record.kind,
            promoted_at=record.promoted_at,
            promoted_by=record.promoted_by,
        )
