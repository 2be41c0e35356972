"""Ends a study: chooses the plan, tests it once on the sealed split, and writes down what can be said."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from env.allocation import Allocation
from env.errors import ApportionError
from env.execution.evidence import ExampleEvidence, stage_marks
from env.spans import span
from planner.archive import TrialRecord
from planner.evidence import (
    Choice,
    Contender,
    SelectionEstimate,
    choose,
    compare,
    contender,
    corrected_estimates,
    mean_interval,
    pareto,
    plain_words,
)
from planner.history import History
from planner.loop.agent_use import agent_use
from planner.loop.constraints import Judged, binding, judge, measures_latency
from planner.loop.context import StudyContext, reference_allocation
from planner.loop.engines import plan_engines, settle_engines
from planner.loop.journal import estimates
from planner.plans.document import (
    ConstraintLine,
    FrontPoint,
    GuidelineLine,
    IntervalPublic,
    LedgerLine,
    PlanDocument,
    Provenance,
    Rival,
    StagePlan,
    StageScore,
)
from planner.plans.explanation import explanation, stage_reason
from planner.plans.marginal import marginal_values

TEST_TRIALS = 1_000_001
"""Trials on the test split are numbered from here, apart from the search's."""


async def conclude(context: StudyContext) -> str:
    """Choose, test, store the plans; returns the chosen allocation as text.

    Raises:
        ApportionError: no trial could be scored; the message gives the reasons seen.
    """
    context.enter("conclude", context.archive.studies.get(context.study_id).round)
    _say_why(context)
    search = SearchTrials(context)
    contenders = search.contenders()
    choice = choose(contenders)
    labelled = _to_test(context, choice)
    tested = await _test(context, labelled)
    corrections = await asyncio.to_thread(corrected_estimates, contenders)
    for kind, subject, estimate in (
        ("chosen", choice.chosen, corrections.chosen),
        ("best", choice.best, corrections.best),
    ):
        document = _document(context, kind, subject, estimate, search, contenders, labelled, tested)  # type: ignore[arg-type]
        context.archive.plans.record(
            context.study_id,
            kind,  # type: ignore[arg-type]
            subject.allocation,
            document.model_dump(mode="json"),
        )
    verdicts = _rivals(choice.chosen, labelled, tested)
    context.event(
        "plan",
        {
            "allocation": str(choice.chosen.allocation),
            "cost": choice.chosen.cost,
            "verdicts": [r.words for r in verdicts],
        },
        "plan",
    )
    return str(choice.chosen.allocation)


def _say_why(context: StudyContext) -> None:
    """Say what ended the search where no limit did: all trials ran, or nothing was left to propose."""
    most = context.spec.budget.search.trials
    journal = context.journal()
    unrun = len(journal.accepted) - len(journal.trials)
    refusal = context.archive.events.latest(context.study_id, "budget")
    if context.trials_left():
        context.stop("space", f"no further allocation was proposed that could run; {context.unused}")
    elif unrun and refusal is not None:
        message = f"{unrun} of the {most:,} trials did not fit what was left; the last: {refusal.payload['message']}"
        context.stop(str(refusal.payload["limit"]), message)
    else:
        context.stop("trials", f"all {most:,} trials of the search budget were used")


class SearchTrials:
    """The search's trials, and what the constraints say of them.

    Evidence is read where something asks for it: a long study has millions of rows.
    """

    def __init__(self, context: StudyContext) -> None:
        self._context = context
        self.trials = [t for t in context.trials() if t.score is not None]
        constraints = context.spec.constraints
        measured = bool(constraints.stage_quality) or measures_latency(constraints)
        self.judged = {t.trial_no: self.judge(t, self.evidence(t.trial_no) if measured else ()) for t in self.trials}

    def evidence(self, trial_no: int) -> tuple[ExampleEvidence, ...]:
        """Of one trial."""
        return self._context.archive.trials.evidence(self._context.study_id, trial_no)

    def judge(self, trial: TrialRecord, evidence: Sequence[ExampleEvidence]) -> list[Judged]:
        """Every constraint, judged on a trial of either split."""
        return judge(self._context.spec.constraints, self._context.space, trial, evidence)

    def contenders(self) -> list[Contender]:
        """The trials that may become the plan: scored on all their examples, and within every constraint.

        Their scores alone are read, in one go.

        Raises:
            ApportionError: there is none; the message says why.
        """
        complete = {t.trial_no: t for t in self.trials if not t.stopped}
        able = {n: t for n, t in complete.items() if all(j.met for j in self.judged[n])}
        found = [
            Contender(
                n, t.allocation, t.score or 0.0, t.predicted_cost, scores, len(scores) / max(1, t.scored + t.failed)
            )
            for n, scores in self._context.archive.trials.scores(self._context.study_id, "search")
            if (t := able.get(n)) is not None
        ]
        if not found and complete:
            why = binding([self.judged[n] for n in complete])
            raise ApportionError(
                f"no trial keeps to the constraints, so there is no plan. {why}. "
                "Relax the constraint, raise the plan budget, or allow more trials"
            )
        if not found:
            raise ApportionError(_nothing_scored(self._context))
        return found


def _nothing_scored(context: StudyContext) -> str:
    reasons: dict[str, int] = {}
    for trial in context.trials():
        for item in context.archive.trials.evidence(context.study_id, trial.trial_no):
            if item.reason:
                reasons[item.reason] = reasons.get(item.reason, 0) + 1
    listed = "; ".join(f"{n} x {reason}" for reason, n in sorted(reasons.items(), key=lambda p: -p[1])[:3])
    why = listed or f"The search ended before a trial did: {context.stopped}. Raise that limit, or leave it out."
    return f"no trial could be scored, so there is no plan. {why}"


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
        with span("trial", study=context.study_id, split="test", trials=[number for number, _ in waiting]):
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
    estimate: SelectionEstimate,
    search: SearchTrials,
    contenders: Sequence[Contender],
    labelled: dict[Allocation, str],
    tested: dict[Allocation, tuple[TrialRecord, tuple[ExampleEvidence, ...]]],
) -> PlanDocument:
    record, evidence = tested[subject.allocation]
    scores = [e.score for e in evidence if e.score is not None]
    remarks: list[str] = []
    remarks += [f"Constraint kept: {j.words}." for j in search.judged[subject.trial_no]]
    stopped = sum(t.stopped for t in search.trials)
    if stopped:
        remarks.append(f"{stopped} of {len(search.trials)} trials were stopped early: they could not catch up.")
    if record.failed:
        remarks.append(f"{record.failed} of {len(evidence)} test examples failed and are in no score.")
    rivals = _rivals(subject, labelled, tested)
    test = IntervalPublic.of(mean_interval(scores)) if scores else None
    history = _with_curves(context, subject)
    guidelines = context.archive.guidelines.list(context.study_id, newest=1)
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
        search_estimate=estimate.raw,
        corrected_estimate=IntervalPublic.of(estimate.corrected),
        chosen_again=estimate.chosen_again,
        test_score=test,
        test_failed=record.failed,
        engines=plan_engines(context, subject.allocation),
        rivals=rivals,
        pareto=[
            FrontPoint(trial_no=c.trial_no, allocation=c.allocation.to_json(), predicted_cost=c.cost, score=c.score)
            for c in pareto(contenders)
        ],
        constraints=_constraints(search, subject, record, evidence),
        stage_scores=_stage_scores(context, evidence),
        marginal=marginal_values(space, subject.allocation, search.trials, search.evidence),
        guidelines=[GuidelineLine(insight=g.insight, stage=g.stage, text=g.text) for g in guidelines],
        ledgers=_ledgers(context),
        trials=len(search.trials),
        refused=context.journal().refused_count,
        stopped=context.stopped,
        explanation=explanation(space, subject, len(search.trials), estimate, test, rivals, remarks),
        remarks=remarks,
        provenance=_provenance(context),
    )


def _with_curves(context: StudyContext, subject: Contender) -> History:
    """The history with the plan's curves, which a long study leaves out unless it is among the best."""
    history = context.history(0)
    curves = context.archive.trials.curves(context.study_id, [subject.trial_no]).get(subject.trial_no, {})
    views = (replace(v, curves=estimates(curves)) if v.trial_no == subject.trial_no else v for v in history.trials)
    return replace(history, trials=tuple(views))


def _constraints(
    search: SearchTrials, subject: Contender, record: TrialRecord, evidence: Sequence[ExampleEvidence]
) -> list[ConstraintLine]:
    tested = {j.subject: j for j in search.judge(record, evidence)}
    return [
        ConstraintLine(
            subject=j.subject,
            limit=j.limit,
            unit=j.unit,
            value=j.value,
            basis="predicted" if j.predicted else "measured",
            met=j.met,
            interval=None if j.interval is None else IntervalPublic.of(j.interval),
            on_test=None if (again := tested[j.subject].interval) is None else IntervalPublic.of(again),
            words=j.words,
        )
        for j in search.judged[subject.trial_no]
    ]


def _stage_scores(context: StudyContext, evidence: Sequence[ExampleEvidence]) -> list[StageScore]:
    marks = stage_marks(evidence)
    return [
        StageScore(stage=s.name, metric=str(s.metric), score=IntervalPublic.of(mean_interval(marks[s.name])))
        for s in context.spec.pipeline.stages
        if marks.get(s.name)
    ]


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
        compared = compare(mine, theirs)
        if compared is None:
            continue
        rivals.append(
            Rival(
                label=label,
                allocation=allocation.to_json(),
                predicted_cost=theirs.cost,
                score=IntervalPublic.of(mean_interval(list(theirs.scores.values()))),
                difference=IntervalPublic.of(compared.difference),
                verdict=compared.verdict,
                p_value=compared.p_value,
                test=compared.test,
                words=plain_words(compared, "The plan", f"{label} ({theirs.score:.3f})"),
            )
        )
    return rivals


def _tested_contender(
    allocation: Allocation, tested: dict[Allocation, tuple[TrialRecord, tuple[ExampleEvidence, ...]]]
) -> Contender | None:
    record, evidence = tested[allocation]
    return contender(record.trial_no, allocation, record.predicted_cost, evidence)


def _ledgers(context: StudyContext) -> list[LedgerLine]:
    lines = [
        LedgerLine(ledger="search", spent=spent, unit=unit, limit=limit)
        for _, spent, unit, limit in context.budgets.spent()
    ]
    tests = context.archive.trials.list(context.study_id, "test", curves=False)
    lines.append(LedgerLine(ledger="test", spent=sum(t.spend.new_draws for t in tests), unit="draws", limit=None))
    proposer = context.archive.ledgers.usage(context.study_id, "proposer")
    limit = context.spec.budget.proposer.tokens
    lines.append(LedgerLine(ledger="proposer", spent=proposer.settled, unit="tokens", limit=limit))
    money = context.archive.ledgers.usage(context.study_id, "proposer_money")
    most = context.spec.budget.proposer.dollars
    if money.unit or most is not None:
        lines.append(LedgerLine(ledger="proposer", spent=money.settled, unit="dollars", limit=most))
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
