"""Ends a study: chooses the plan, tests it once on the sealed split, and writes down what can be said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from env.allocation import Allocation
from env.errors import ApportionError
from env.execution.evidence import ExampleEvidence
from planner.archive import TrialRecord
from planner.evidence import Choice, Contender, choose, compare, contender, mean_interval, pareto
from planner.loop.agent_use import agent_use
from planner.loop.context import StudyContext, reference_allocation
from planner.loop.engines import plan_engines, settle_engines
from planner.plans.document import (
    FrontPoint,
    GuidelineLine,
    IntervalPublic,
    LedgerLine,
    PlanDocument,
    Provenance,
    Rival,
    StagePlan,
)
from planner.plans.explanation import explanation, stage_reason

TEST_TRIALS = 1_000_001
"""Trials on the test split are numbered from here, apart from the search's."""


async def conclude(context: StudyContext) -> str:
    """Choose, test, store the plans; returns the chosen allocation as text.

    Raises:
        ApportionError: no trial could be scored; the message gives the reasons seen.
    """
    context.enter("conclude", context.archive.studies.get(context.study_id).round)
    trials = [t for t in context.trials() if t.score is not None]
    contenders = [c for t in trials if (c := _contender(context, t)) is not None]
    if not contenders:
        raise ApportionError(_nothing_scored(context))
    choice = choose(contenders)
    labelled = _to_test(context, choice)
    tested = await _test(context, labelled)
    for kind, subject in (("chosen", choice.chosen), ("best", choice.best)):
        document = _document(context, kind, subject, contenders, labelled, tested)  # type: ignore[arg-type]
        context.archive.plans.record(
            context.study_id,
            kind,  # type: ignore[arg-type]
            subject.allocation,
            document.model_dump(mode="json"),
        )
    context.event("plan", {"allocation": str(choice.chosen.allocation), "cost": choice.chosen.cost}, "plan")
    return str(choice.chosen.allocation)


def _contender(context: StudyContext, trial: TrialRecord) -> Contender | None:
    evidence = context.archive.trials.evidence(context.study_id, trial.trial_no)
    return contender(trial.trial_no, trial.allocation, trial.predicted_cost, evidence)


def _nothing_scored(context: StudyContext) -> str:
    reasons: dict[str, int] = {}
    for trial in context.trials():
        for item in context.archive.trials.evidence(context.study_id, trial.trial_no):
            if item.reason:
                reasons[item.reason] = reasons.get(item.reason, 0) + 1
    listed = "; ".join(f"{n} x {reason}" for reason, n in sorted(reasons.items(), key=lambda p: -p[1])[:3])
    return f"no trial could be scored, so there is no plan. {listed or 'No trial ran: check the search budget.'}"


def _to_test(context: StudyContext, choice: Choice) -> dict[Allocation, str]:
    """What the sealed split is read for, in one go: the plans and what they are held against."""
    labelled = {choice.chosen.allocation: "the plan"}
    labelled.setdefault(choice.best.allocation, "best on the search split")
    if choice.runner_up is not None:
        labelled.setdefault(choice.runner_up.allocation, "runner-up of the search")
    reference = reference_allocation(context.space)
    if reference is not None:
        model = reference[reference.stages[0]].model
        labelled.setdefault(reference, f"{model} once in every stage")
    return labelled


async def _test(
    context: StudyContext, labelled: dict[Allocation, str]
) -> dict[Allocation, tuple[TrialRecord, tuple[ExampleEvidence, ...]]]:
    known = context.archive.trials.by_allocation(context.study_id, "test")
    waiting = [(TEST_TRIALS + i, a) for i, a in enumerate(labelled)]
    # All or none, for the same reason as in a round of the search: a draw is counted once, for the first that asked.
    if any(a not in known for _, a in waiting):
        await settle_engines(context)
        results = await context.environment.run_batch(
            [a for _, a in waiting],
            context.splits.test,
            f"{context.study_id}/test",
            context.progress_sink(0, f"sealed test split, {len(waiting)} allocations"),
        )
        for (number, _), result in zip(waiting, results, strict=True):
            context.archive.trials.record(context.study_id, number, "test", 0, result, context.space.unit)
    records = context.archive.trials.by_allocation(context.study_id, "test")
    return {
        a: (record, context.archive.trials.evidence(context.study_id, record.trial_no))
        for a, record in records.items()
        if a in labelled
    }


def _document(
    context: StudyContext,
    kind: Literal["chosen", "best"],
    subject: Contender,
    contenders: Sequence[Contender],
    labelled: dict[Allocation, str],
    tested: dict[Allocation, tuple[TrialRecord, tuple[ExampleEvidence, ...]]],
) -> PlanDocument:
    record, evidence = tested[subject.allocation]
    scores = [e.score for e in evidence if e.score is not None]
    remarks: list[str] = []
    if record.failed:
        remarks.append(f"{record.failed} of {len(evidence)} test examples failed and are in no score.")
    rivals = _rivals(subject, labelled, tested)
    test = IntervalPublic.of(mean_interval(scores)) if scores else None
    history = context.history(0)
    guidelines = context.archive.guidelines.list(context.study_id)
    last = max((g.round for g in guidelines), default=0)
    space = context.space
    return PlanDocument(
        kind=kind,
        allocation=subject.allocation.to_json(),
        stages=[
            StagePlan(
                stage=stage,
                model=s.model,
                strategy=s.strategy,
                samples=s.samples,
                predicted_cost=space.price(stage, s),
                why=stage_reason(space, history, subject.allocation, stage),
            )
            for stage, s in subject.allocation.settings
        ],
        unit=space.unit,
        predicted_cost=subject.cost,
        measured_cost=record.measured_cost,
        budget=space.limit,
        search_score=subject.score,
        search_examples=len(subject.scores),
        test_score=test,
        test_failed=record.failed,
        engines=plan_engines(context, subject.allocation),
        rivals=rivals,
        pareto=[
            FrontPoint(trial_no=c.trial_no, allocation=c.allocation.to_json(), predicted_cost=c.cost, score=c.score)
            for c in pareto(contenders)
        ],
        guidelines=[
            GuidelineLine(insight=g.insight, stage=g.stage, text=g.text) for g in guidelines if g.round == last
        ],
        ledgers=_ledgers(context),
        trials=len(contenders),
        refused=len(history.refused),
        explanation=explanation(space, subject, contenders, test, rivals, remarks),
        remarks=remarks,
        provenance=_provenance(context),
    )


def _rivals(
    subject: Contender,
    labelled: dict[Allocation, str],
    tested: dict[Allocation, tuple[TrialRecord, tuple[ExampleEvidence, ...]]],
) -> list[Rival]:
    mine = _tested_contender(subject.allocation, tested)
    rivals: list[Rival] = []
    for allocation, label in labelled.items():
        theirs = _tested_contender(allocation, tested)
        if allocation == subject.allocation or mine is None or theirs is None:
            continue
        difference = compare(mine, theirs)
        if difference is None:
            continue
        verdict: Literal["better", "worse", "cannot be told apart"] = "cannot be told apart"
        if difference.low > 0:
            verdict = "better"
        elif difference.high < 0:
            verdict = "worse"
        rivals.append(
            Rival(
                label=label,
                allocation=allocation.to_json(),
                predicted_cost=theirs.cost,
                score=IntervalPublic.of(mean_interval(list(theirs.scores.values()))),
                difference=IntervalPublic.of(difference),
                verdict=verdict,
            )
        )
    return rivals


def _tested_contender(
    allocation: Allocation, tested: dict[Allocation, tuple[TrialRecord, tuple[ExampleEvidence, ...]]]
) -> Contender | None:
    record, evidence = tested[allocation]
    return contender(record.trial_no, allocation, record.predicted_cost, evidence)


def _ledgers(context: StudyContext) -> list[LedgerLine]:
    lines: list[LedgerLine] = []
    budget = context.spec.budget
    search = context.archive.ledgers.usage(context.study_id, "search")
    lines.append(LedgerLine(ledger="search", spent=search.settled, unit="draws", limit=budget.search.draws))
    tests = context.archive.trials.list(context.study_id, "test")
    lines.append(LedgerLine(ledger="test", spent=sum(t.spend.new_draws for t in tests), unit="draws", limit=None))
    proposer = context.archive.ledgers.usage(context.study_id, "proposer")
    lines.append(LedgerLine(ledger="proposer", spent=proposer.settled, unit="tokens", limit=budget.proposer.tokens))
    money = context.archive.ledgers.usage(context.study_id, "proposer_money")
    if money.unit or budget.proposer.dollars is not None:
        limit = budget.proposer.dollars
        lines.append(LedgerLine(ledger="proposer", spent=money.settled, unit="dollars", limit=limit))
    return lines


def _provenance(context: StudyContext) -> Provenance:
    spec = context.spec.model_dump(mode="json")
    try:
        installed = version("apportion")
    except PackageNotFoundError:
        installed = "not installed"
    return Provenance(
        study_id=context.study_id,
        study=context.spec.name,
        spec_sha256=hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest(),
        seed=context.spec.seed,
        proposer=context.proposer.kind,
        models={
            name: context.backends.backend(name).identity.revision for name in sorted(context.spec.pipeline.models)
        },
        apportion=installed,
        ablated=list(context.spec.proposer.ablate),
        agent=agent_use(context),
    )
