"""Adds up what a study spent, ledger by ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.archive import ProposalRecord, StudyRecord, TrialRecord
from planner.plans.document import PlanDocument
from planner.plans.study_report import SpendLine


def spend_lines(
    document: PlanDocument,
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    tests: Sequence[TrialRecord],
    calls: Sequence[ProposalRecord],
) -> list[SpendLine]:
    """What the plan costs a query, what the search, the sealed test and the proposer spent.

    Args:
        document: the plan, with the ledgers as they were charged.
        study: its spec states limits.
        trials: of the search split.
        tests: of the sealed split.
        calls: rows that keep the calls of the proposer's LLM.
    """
    planned = SpendLine(
        ledger="plan",
        what="predicted, per query",
        spent=document.predicted_cost,
        unit=document.unit,
        limit=document.budget,
    )
    lines = [planned]
    if document.measured_cost is not None:
        lines.append(_line("plan", "measured, per query", document.measured_cost, document.unit))
    lines.append(
        SpendLine(ledger="search", what="trials run", spent=len(trials), unit="trials", limit=_most_trials(study))
    )
    lines += [
        SpendLine(ledger=line.ledger, what="charged to the ledger", spent=line.spent, unit=line.unit, limit=line.limit)
        for line in document.ledgers
    ]
    for name, members in (("search", trials), ("test", tests)):
        lines += _tokens(name, members)
    if calls:
        lines += [
            _line("proposer", "LLM calls", len(calls), "calls"),
            _line("proposer", "calls without a usable reply", sum(c.verdict == "refused" for c in calls), "calls"),
            _line("proposer", "prompt", sum(c.tokens_in for c in calls), "tokens"),
            _line("proposer", "reply", sum(c.tokens_out for c in calls), "tokens"),
        ]
    order = list(dict.fromkeys(["plan", "search", *(line.ledger for line in lines)]))
    return sorted(lines, key=lambda line: order.index(line.ledger))


def _tokens(ledger: str, trials: Sequence[TrialRecord]) -> list[SpendLine]:
    spent = [t.spend for t in trials]
    if not spent:
        return []
    return [
        _line(ledger, "draws used again", sum(s.reused_draws for s in spent), "draws"),
        _line(ledger, "prompt, new draws", sum(s.prompt_tokens for s in spent), "tokens"),
        _line(ledger, "output, new draws", sum(s.output_tokens for s in spent), "tokens"),
        _line(ledger, "cost of new draws", sum(s.cost for s in spent), trials[0].unit),
        _line(ledger, "running, trials added up", sum(s.seconds for s in spent), "s"),
    ]


def _line(ledger: str, what: str, spent: float, unit: str) -> SpendLine:
    return SpendLine(ledger=ledger, what=what, spent=spent, unit=unit, limit=None)


def _most_trials(study: StudyRecord) -> float | None:
    """The search's limit of trials as the stored spec states it, whatever version it is of."""
    node: Any = study.spec
    for key in ("budget", "search", "trials"):
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return float(node) if isinstance(node, int | float) and not isinstance(node, bool) else None
