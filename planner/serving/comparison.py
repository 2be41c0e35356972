"""What changes from one plan to another: stages, cost, and the score where the two can be held against each other."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from env.errors import ApportionError
from env.spec import StudySpec
from env.tasks.data import load_splits
from planner.archive import Archive, PlanRecord
from planner.evidence import Contender, VerdictWord, compare, contender, plain_words
from planner.plans import PlanDocument, amount
from planner.plans.document import AllocationJson, IntervalPublic
from planner.plans.wording import setting_text


class _Public(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageChange(_Public):
    """One stage in both plans; null where a plan has no such stage."""

    stage: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    changed: list[str] = Field(description="Of model, strategy, samples and knobs those that differ.")


class ScoreChange(_Public):
    """After minus before, paired over the test examples that both plans were scored on."""

    difference: IntervalPublic
    verdict: VerdictWord = Field(description="Of the plan after.")
    p_value: float
    words: str


class PlanDiff(_Public):
    """From one plan to another."""

    before: str
    after: str
    same: bool = Field(description="Whether both allocate the same, stage by stage.")
    stages: list[StageChange]
    score: ScoreChange | None = Field(description="Null where the two are not comparable; `not_comparable` says why.")
    not_comparable: str
    unit: str | None = Field(description="Of the costs; null where the plans count in different units.")
    cost_before: float
    cost_after: float
    cost_difference: float | None = Field(description="After minus before, per query, predicted.")
    words: list[str]
    allocation_before: AllocationJson
    allocation_after: AllocationJson


def plan_diff(archive: Archive, before: PlanRecord, after: PlanRecord) -> PlanDiff:
    """Compare two plans; reads their evidence, and their data where it was described differently."""
    old, new = (PlanDocument.model_validate(dict(record.document)) for record in (before, after))
    stages = _stages(old.allocation, new.allocation)
    score, why = _score(archive, before, after)
    same_unit = old.unit == new.unit
    difference = new.predicted_cost - old.predicted_cost if same_unit else None
    return PlanDiff(
        before=before.id,
        after=after.id,
        same=old.allocation == new.allocation,
        stages=stages,
        score=score,
        not_comparable=why,
        unit=new.unit if same_unit else None,
        cost_before=old.predicted_cost,
        cost_after=new.predicted_cost,
        cost_difference=difference,
        words=_words(stages, score, why, old, new),
        allocation_before=old.allocation,
        allocation_after=new.allocation,
    )


def _stages(old: AllocationJson, new: AllocationJson) -> list[StageChange]:
    found = []
    for stage in dict.fromkeys((*old, *new)):
        one, other = old.get(stage), new.get(stage)
        keys = ("model", "strategy", "samples", "knobs")
        changed = [key for key in keys if (one or {}).get(key) != (other or {}).get(key)]
        found.append(StageChange(stage=stage, before=one, after=other, changed=changed))
    return found


def _score(archive: Archive, before: PlanRecord, after: PlanRecord) -> tuple[ScoreChange | None, str]:
    one, other = _tested(archive, before), _tested(archive, after)
    if one is None or other is None:
        which = before if one is None else after
        return None, f"plan {which.id} was not scored on its test split"
    shared: set[str] | str = set(one.scores) & set(other.scores)
    if before.study_id != after.study_id:
        shared = _same_examples(archive, before.study_id, after.study_id)
    if isinstance(shared, str):
        return None, shared
    found = compare(_only(other, shared), _only(one, shared))
    if found is None:
        return None, "no test example was scored with both plans"
    words = plain_words(found, "The plan after", "the plan before")
    difference = IntervalPublic.of(found.difference)
    return ScoreChange(difference=difference, verdict=found.verdict, p_value=found.p_value, words=words), ""


def _tested(archive: Archive, record: PlanRecord) -> Contender | None:
    trial = archive.trials.by_allocation(record.study_id, "test").get(record.allocation)
    if trial is None:
        return None
    evidence = archive.trials.evidence(record.study_id, trial.trial_no)
    return contender(trial.trial_no, trial.allocation, trial.predicted_cost, evidence)


def _only(subject: Contender, shared: set[str]) -> Contender:
    scores = {example: score for example, score in subject.scores.items() if example in shared}
    return Contender(
        subject.trial_no, subject.allocation, subject.score, subject.cost, scores, len(scores) / max(1, len(shared))
    )


def _same_examples(archive: Archive, one: str, other: str) -> set[str] | str:
    """Ids of test examples that are the same in both studies, or why they cannot be held against each other."""
    specs = []
    for study in (one, other):
        try:
            specs.append(StudySpec.model_validate(dict(archive.studies.get(study).spec)))
        except ValidationError:
            return f"the spec of study {study} is of another version"
    metrics = [spec.pipeline.metric for spec in specs]
    if metrics[0] != metrics[1]:
        return f"the studies score by different metrics ({metrics[0]} and {metrics[1]})"
    try:
        left, right = ({e.id: e for e in load_splits(spec.data).test} for spec in specs)
    except ApportionError as error:
        return f"the examples cannot be read to tell whether they are the same: {error}"
    shared = {identity for identity, example in left.items() if right.get(identity) == example}
    return shared or "the studies have no test example in common"


def _words(
    stages: list[StageChange], score: ScoreChange | None, why: str, old: PlanDocument, new: PlanDocument
) -> list[str]:
    said = [
        f"{change.stage}: {_setting(change.before)} becomes {_setting(change.after)}"
        for change in stages
        if change.changed
    ]
    said = said or ["Both plans allocate the same."]
    said.append(score.words if score is not None else f"The scores are not comparable: {why}.")
    if old.unit == new.unit:
        share = (new.predicted_cost - old.predicted_cost) / old.predicted_cost if old.predicted_cost else 0.0
        costs = f"{amount(old.predicted_cost, old.unit)} to {amount(new.predicted_cost, new.unit)}"
        said.append(f"Predicted cost per query: {costs} ({100 * share:+.1f}%).")
    else:
        said.append(f"The costs are in different units: {old.unit} and {new.unit}.")
    return said


def _setting(setting: dict[str, Any] | None) -> str:
    return "nothing" if setting is None else setting_text(setting)
