"""Says in sentences what a study's evidence does not show."""

from __future__ import annotations

from collections.abc import Sequence

from planner.archive import TrialRecord
from planner.plans.document import PlanDocument
from planner.plans.study_report import Fitted, StageAccount, StudyFacts
from planner.plans.wording import count, duration, share
from planner.space import SearchSpace

COUNTED_ALLOCATIONS = 20_000
"""Allocations of a space are counted up to here: to say that few of many were tried, no more is needed."""

ORDERLY = 0.95
"""Rank correlation from which predicted costs are said to order allocations as measured ones do."""


def limits(
    document: PlanDocument,
    study: StudyFacts,
    trials: Sequence[TrialRecord],
    tests: Sequence[TrialRecord],
    stages: Sequence[StageAccount],
    space: SearchSpace | None,
    fitted: Sequence[Fitted],
) -> list[str]:
    """What a reader must know before trusting the plan further than the evidence goes.

    Args:
        document: the plan.
        study: which.
        trials: of the search split.
        tests: of the sealed split.
        stages: accounts of the plan's stages.
        space: None where the stored spec cannot be read any more.
        fitted: predicted against measured costs.
    """
    return [
        *([f"The search ended: {document.stopped}."] if document.stopped else []),
        *_examples(document, tests),
        *_not_told_apart(document, trials),
        *_not_evaluated(document, trials, stages, space),
        *document.remarks,
        *(f"{f.title}: {f.words}" for f in fitted if _is_loose(f)),
        *_money(document),
        *_time(study),
    ]


def _is_loose(fitted: Fitted) -> bool:
    """Whether a prediction is not known to order allocations as measurements do."""
    return fitted.fit is None or fitted.fit.rank_correlation is None or fitted.fit.rank_correlation < ORDERLY


def _examples(document: PlanDocument, tests: Sequence[TrialRecord]) -> list[str]:
    searched = count(document.search_examples, "search example")
    lines = [
        f"Search scores rest on {searched} and are optimistic for the plan, which was chosen for scoring high on them."
    ]
    if document.test_score is None:
        return [*lines, "The sealed test split could not be evaluated, so nothing here is free of that optimism."]
    read = f"The sealed test split ({count(document.test_score.examples, 'scored example')}) was read once, at the end"
    return [*lines, f"{read}, for {count(len(tests), 'allocation')} together." if tests else f"{read}."]


def _not_told_apart(document: PlanDocument, trials: Sequence[TrialRecord]) -> list[str]:
    lines: list[str] = []
    alike = [r.label for r in document.rivals if r.verdict == "cannot be told apart"]
    if alike:
        lines.append(f"On the sealed split the plan cannot be told apart from: {'; '.join(alike)}.")
    widths = [(r.difference.high - r.difference.low) / 2 for r in document.rivals]
    if widths and max(widths) > 0:
        lines.append(
            f"Paired differences on the sealed split are known to about ±{max(widths):.3f} at the worst: smaller ones "
            "cannot be told from nothing."
        )
    own = next((t for t in trials if t.allocation.to_json() == document.allocation), None)
    if own is not None and own.score is not None and own.standard_error:
        floor = own.score - own.standard_error
        near = sum(t.score is not None and t.score >= floor for t in trials) - 1
        if near > 0:
            lines.append(
                f"{count(near, 'other trial')} scored within one standard error ({own.standard_error:.3f}) of the plan "
                "in the search: their order among each other is not known."
            )
    return lines


def _not_evaluated(
    document: PlanDocument, trials: Sequence[TrialRecord], stages: Sequence[StageAccount], space: SearchSpace | None
) -> list[str]:
    lines: list[str] = []
    without = sum(t.score is None for t in trials)
    failed = sum(t.failed for t in trials if t.score is not None)
    if without:
        lines.append(f"{count(without, 'trial')} could not be evaluated; a missing score is not a score of 0.")
    if failed:
        lines.append(f"{count(failed, 'example')} of the scored trials failed and are in no score.")
    if document.test_failed and not document.remarks:
        lines.append(f"{count(document.test_failed, 'test example')} failed and are in no score.")
    untried = [f"{n.model} at {s.stage}" for s in stages for n in s.neighbours if n.trial_no is None]
    if untried:
        lines.append(f"Not tried: {', '.join(untried)}.")
    if space is not None:
        size = space.size(COUNTED_ALLOCATIONS)
        many = f"more than {size:,}" if size >= COUNTED_ALLOCATIONS else f"{size:,}"
        part = f" ({share(len(trials) / size)})" if size < COUNTED_ALLOCATIONS else ""
        lines.append(
            f"{count(len(trials), 'allocation')} of {many} that the budget buys were tried{part}; of the others the "
            "search knows only what the trials suggest."
        )
    return lines


def _money(document: PlanDocument) -> list[str]:
    tokens = sum(line.spent for line in document.ledgers if line.ledger == "proposer" and line.unit == "tokens")
    priced = any(line.ledger.startswith("proposer") and line.unit in ("$", "dollars") for line in document.ledgers)
    if tokens and not priced:
        return [f"What the proposer's {count(tokens, 'token')} cost in money is not known: no price is stated for it."]
    return []


def _time(study: StudyFacts) -> list[str]:
    if study.wall_seconds is None:
        return []
    return [f"The study took {duration(study.wall_seconds)} from its start to its end, interruptions included."]
