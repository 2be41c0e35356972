"""The models that the plan endpoint offers."""

from __future__ import annotations

from typing import Any

from api.completions.targets import PLAN, STAGE, Target
from planner.archive import Archive, PlanRecord

NEWEST = 50
"""Plans of studies that are listed beside the promoted ones; every other answers as well."""


def model_list(archive: Archive) -> dict[str, Any]:
    """Promoted plans with their stages, then the newest plans by study."""
    listed: list[dict[str, Any]] = []
    promoted = archive.promotions.current()
    plans = archive.plans.some([(one.study_id, one.kind) for one in promoted], documents=False)
    for promotion in promoted:
        record = plans.get((promotion.study_id, promotion.kind))
        if record is not None:
            listed += _models(promotion.name, record)
    for record, _ in archive.plans.page(NEWEST, kind="chosen", documents=False):
        listed += _models(record.study_id, record)
    return {"object": "list", "data": listed}


def model_of(target: Target) -> dict[str, Any]:
    """One model."""
    document = target.document
    return _model(target.model, target.record) | {
        "apportion": {
            "plan": target.record.id,
            "study": document.provenance.study,
            "unit": document.unit,
            "predicted_cost": target.point.predicted_cost,
            "score": target.point.score,
            "trial": target.point.trial_no,
            "allocation": target.allocation.to_json(),
            "stages": [f"{STAGE}{_plain(target)}/{stage}" for stage in target.allocation.stages],
        }
    }


def _plain(target: Target) -> str:
    name = target.model.partition(":")[2]
    return name if target.stage is None else name.rpartition("/")[0]


def _models(name: str, record: PlanRecord) -> list[dict[str, Any]]:
    names = [f"{PLAN}{name}", *(f"{STAGE}{name}/{stage}" for stage in record.allocation.stages)]
    return [_model(one, record) for one in names]


def _model(name: str, record: PlanRecord) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(record.created_at.timestamp()), "owned_by": "apportion"}
