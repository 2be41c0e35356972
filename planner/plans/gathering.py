"""Gathers a finished study's report from the archive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from env.errors import ApportionError
from env.spec import StudySpec
from planner.archive import Archive, NotFound, ProposalRecord, StudyRecord, TrialRecord
from planner.plans.document import PlanDocument
from planner.plans.explanation import amount
from planner.plans.ladders import Comparison, StudyLadders, comparisons, study_ladders
from planner.plans.limits import limits
from planner.plans.spending import spend_lines
from planner.plans.stage_accounts import StageAccounts, TrialEvidence
from planner.plans.study_report import (
    CurveValue,
    Extra,
    Fit,
    Fitted,
    GuidelineRound,
    Refusal,
    RefusalGroup,
    StageAccount,
    StudyFacts,
    StudyReport,
    TrialLine,
    UnitLine,
)
from planner.plans.wording import allocation_text, count, difference, duration, score, share
from planner.space import SearchSpace

CALL = "call"
"""Origin of the rows that keep a proposer's LLM calls; they are no proposals."""

PLACED = frozenset(
    {
        "version",
        "kind",
        "allocation",
        "stages",
        "unit",
        "predicted_cost",
        "measured_cost",
        "budget",
        "search_score",
        "search_examples",
        "test_score",
        "test_failed",
        "rivals",
        "pareto",
        "guidelines",
        "ledgers",
        "stopped",
        "trials",
        "refused",
        "explanation",
        "remarks",
        "provenance",
    }
)
"""Fields of the plan document that have a place in the report; others are listed as they are."""

_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")


@dataclass(frozen=True)
class GatheredReport:
    """A report and the records behind it, for figures."""

    report: StudyReport
    trials: list[TrialRecord]
    ladders: StudyLadders
    chosen: TrialRecord | None


def gather_report(archive: Archive, study_id: str) -> GatheredReport:
    """Everything the reports say of a finished study.

    Args:
        archive: where it is.
        study_id: a study with a plan.

    Raises:
        NotFound: no such study, or it has no plan.
    """
    study = archive.studies.get(study_id)
    document = PlanDocument.model_validate(dict(archive.plans.get(study_id).document))
    trials, tests = archive.trials.list(study_id, "search"), archive.trials.list(study_id, "test")
    ladders, space = study_ladders(archive, study_id, trials), _space(study)
    accounts = StageAccounts(document, trials, TrialEvidence(archive, study_id), space)
    stages = accounts.all()
    proposals = archive.proposals.list(study_id)
    refused = [p for p in proposals if p.verdict == "refused" and p.origin != CALL]
    facts = _facts(study)
    fitted = [_fitted(c) for c in comparisons(trials, ladders, document.unit)]
    report = StudyReport(
        summary=_summary(document, facts, stages),
        study=facts,
        plan=document,
        best=_best(archive, study_id),
        stages=stages,
        runner_up=_runner_up(document),
        units=_units(ladders, accounts.chosen),
        trials=[_trial_line(t, ladders) for t in trials],
        calibrations={f"{f.predicted_unit} -> {f.measured_unit}": f.fit for f in fitted},
        fitted=fitted,
        guidelines=[
            GuidelineRound(round=g.round, insight=g.insight, stage=g.stage, text=g.text)
            for g in archive.guidelines.list(study_id)
        ],
        refused=[_refusal(p) for p in refused],
        refusals=_grouped(refused),
        ledgers=spend_lines(document, study, trials, tests, [p for p in proposals if p.origin == CALL]),
        limits=limits(document, facts, trials, tests, stages, space, fitted),
        extras=_extras(document),
        spec=dict(study.spec),
    )
    return GatheredReport(report, trials, ladders, accounts.chosen)


def _fitted(comparison: Comparison) -> Fitted:
    return Fitted(
        title=comparison.title,
        predicted_unit=comparison.predicted_unit,
        measured_unit=comparison.measured_unit,
        fit=None if comparison.fit is None else Fit(**asdict(comparison.fit)),
        words=comparison.words,
    )


def _space(study: StudyRecord) -> SearchSpace | None:
    try:
        return SearchSpace(StudySpec.model_validate(dict(study.spec)))
    except (ValidationError, ApportionError):
        return None


def _facts(study: StudyRecord) -> StudyFacts:
    return StudyFacts(
        id=study.id,
        name=study.name,
        description=str(study.spec.get("description") or ""),
        proposer=study.proposer,
        seed=study.seed,
        created_at=study.created_at,
        started_at=study.started_at,
        finished_at=study.finished_at,
    )


def _best(archive: Archive, study_id: str) -> PlanDocument | None:
    try:
        return PlanDocument.model_validate(dict(archive.plans.get(study_id, "best").document))
    except NotFound:
        return None


def _summary(document: PlanDocument, study: StudyFacts, stages: Sequence[StageAccount]) -> list[str]:
    """What the plan is and scores; what it beat; where its cost goes and what more would bring."""
    price = f"{amount(document.predicted_cost, document.unit)} per query of {amount(document.budget, document.unit)}"
    test = document.test_score
    scored = (
        f"scores {score(test.estimate)} on {count(test.examples, 'sealed test example')} "
        f"(95% interval {score(test.low)} to {score(test.high)})"
        if test
        else f"could not be scored on the sealed test split ({score(document.search_score)} in the search)"
    )
    took = "" if study.wall_seconds is None else f" in {duration(study.wall_seconds)}"
    beaten = [f"{r.verdict} than {r.label}" for r in document.rivals if r.verdict != "cannot be told apart"]
    alike = [r.label for r in document.rivals if r.verdict == "cannot be told apart"]
    against = [*beaten, *([f"not to be told apart from {' and '.join(alike)}"] if alike else [])]
    held = f"; on the sealed examples it is {' and '.join(against)}" if against else ""
    return [
        f"The plan {allocation_text(document.allocation)} costs {price} allowed and {scored}.",
        f"It was chosen among {count(document.trials, 'trial')}{took}{held}.",
        _worth(document, stages),
    ]


def _worth(document: PlanDocument, stages: Sequence[StageAccount]) -> str:
    main = max(stages, key=lambda s: s.share)
    where = f"Most of its cost goes to {main.stage} ({share(main.share)})"
    gains = [(s, s.up) for s in stages if s.up is not None and s.up.difference.low > 0]
    if not gains:
        return f"{where}, and at no stage do the trials show a certain gain from the next sample."
    stage, step = max(gains, key=lambda g: g[1].per_percent or 0.0)
    room = "" if step.affordable else ", which the budget has no room for"
    return (
        f"{where}, and the next sample pays most at {stage.stage}: {difference(step.difference)} for "
        f"{amount(step.cost, document.unit)} more{room}."
    )


def _runner_up(document: PlanDocument) -> str:
    found = next((r for r in document.rivals if r.label.startswith("runner-up")), None)
    if found is None:
        return "No runner-up was tested on the sealed split beside the plan."
    apart = "can be told apart" if found.verdict != "cannot be told apart" else "cannot be told apart"
    return (
        f"The runner-up {allocation_text(found.allocation)} scores {score(found.score.estimate)} at "
        f"{amount(found.predicted_cost, document.unit)} per query; plan minus runner-up is "
        f"{difference(found.difference)}: the two {apart} on the sealed examples."
    )


def _units(ladders: StudyLadders, chosen: TrialRecord | None) -> list[UnitLine]:
    ladder = ladders.trials.get(chosen.trial_no) if chosen else None
    if ladder is None:
        return []
    return [
        UnitLine(unit=unit, written=written, predicted=ladder.predicted.get(unit), measured=ladder.measured.get(unit))
        for unit, written in ladders.units.items()
        if ladder.predicted.get(unit) or ladder.measured.get(unit)
    ]


def _trial_line(trial: TrialRecord, ladders: StudyLadders) -> TrialLine:
    ladder = ladders.trials.get(trial.trial_no)
    priced = ladder and {"predicted": dict(ladder.predicted), "measured": dict(ladder.measured), "timed": ladder.timed}
    return TrialLine(
        trial_no=trial.trial_no,
        round=trial.round,
        allocation=trial.allocation.to_json(),
        text=allocation_text(trial.allocation.to_json()),
        score=trial.score,
        standard_error=trial.standard_error,
        predicted_cost=trial.predicted_cost,
        measured_cost=trial.measured_cost,
        unit=trial.unit,
        new_draws=trial.spend.new_draws,
        reused_draws=trial.spend.reused_draws,
        failed=trial.failed,
        examples=trial.scored + trial.failed,
        stopped=trial.stopped,
        stage_scores=dict(trial.stage_scores),
        seconds=trial.spend.seconds,
        load_seconds=trial.spend.load_seconds,
        status=trial.status,
        ladder=priced,
        curves={
            stage: [CurveValue(k=p.k, score=p.score, coverage=p.coverage, standard_error=p.standard_error) for p in ps]
            for stage, ps in trial.curves.items()
        },
    )


def _refusal(proposal: ProposalRecord) -> Refusal:
    allocation = allocation_text(proposal.allocation.to_json()) if proposal.allocation else ""
    return Refusal(
        round=proposal.round, origin=proposal.origin, allocation=allocation, reason=proposal.verdict_reason or "none"
    )


def _grouped(refused: Sequence[ProposalRecord]) -> list[RefusalGroup]:
    """Refusals by reason, commonest first; reasons that differ in numbers alone are one."""
    groups: dict[str, list[Refusal]] = {}
    for refusal in map(_refusal, refused):
        groups.setdefault(_NUMBER.sub("…", refusal.reason), []).append(refusal)
    found = [
        RefusalGroup(
            reason=members[0].reason if len({m.reason for m in members}) == 1 else pattern,
            count=len(members),
            example=next((m.allocation for m in members if m.allocation), ""),
        )
        for pattern, members in groups.items()
    ]
    return sorted(found, key=lambda g: (-g.count, g.reason))


def _extras(document: PlanDocument) -> list[Extra]:
    """What the document says in fields that this report has no place for, so that nothing newer is lost."""
    found: list[Extra] = []
    for name in type(document).model_fields:
        value = getattr(document, name)
        if name in PLACED or value is None or value == []:
            continue
        plain = document.model_dump(mode="json", include={name})[name]
        found.append(Extra(name=name.replace("_", " "), value=plain, words=_extra_words(plain)))
    return found


def _extra_words(value: Any) -> str:
    if isinstance(value, dict) and {"estimate", "low", "high"} <= value.keys():
        return f"{value['estimate']:.3f} (95% interval {value['low']:.3f} to {value['high']:.3f})"
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')}: {_extra_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return "; ".join(_extra_words(inner) for inner in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
