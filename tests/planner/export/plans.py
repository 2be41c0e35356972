"""Plans put into an archive without a search, for tests of what is done with them."""

from __future__ import annotations

from typing import Any

from env.allocation import Allocation
from env.spec import StudySpec
from planner.archive import Archive, PlanRecord
from planner.plans import PlanDocument
from planner.plans.document import Provenance


def a_plan(archive: Archive, spec: dict[str, Any], allocation: Allocation, study: str) -> PlanRecord:
    """A finished study with this allocation as its plan."""
    checked = StudySpec.model_validate(spec)
    archive.studies.create(study, checked.name, checked.model_dump(mode="json"), checked.seed)
    document = PlanDocument(
        kind="chosen",
        allocation=allocation.to_json(),
        stages=[],
        unit="FLOPs",
        predicted_cost=1e8,
        measured_cost=None,
        budget=1e9,
        search_score=0.5,
        search_examples=10,
        test_score=None,
        rivals=[],
        pareto=[],
        guidelines=[],
        ledgers=[],
        trials=1,
        refused=0,
        explanation="",
        provenance=Provenance(
            study_id=study, study=checked.name, spec_sha256="", seed=0, proposer="random", models={}, apportion="0"
        ),
    )
    return archive.plans.record(study, "chosen", allocation, document.model_dump(mode="json"))
