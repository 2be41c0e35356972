"""Says in plain words what the evidence shows about a plan, and claims no more."""

from __future__ import annotations

from collections.abc import Sequence

from env.allocation import Allocation
from planner.evidence import Contender, SelectionEstimate
from planner.history import History
from planner.plans.document import IntervalPublic, LedgerLine, Rival
from planner.proposers.guidelines import plateau_of
from planner.space import SearchSpace

PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
PREFIXED = ("FLOPs", "eFLOPs")


def amount(value: float, unit: str) -> str:
    """A cost for people: FLOPs with a prefix, other units plain."""
    if unit in PREFIXED:
        for size, prefix in PREFIXES:
            if value >= size:
                return f"{value / size:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"


def spent(line: LedgerLine) -> str:
    """What a ledger was charged, for people: whole draws and tokens, money to the cent of a cent."""
    if line.unit in ("draws", "tokens"):
        return f"{line.spent:,.0f} {line.unit}"
    return f"{line.spent:,.4f} dollars" if line.unit == "dollars" else amount(line.spent, line.unit)


def stage_reason(space: SearchSpace, history: History, allocation: Allocation, stage: str) -> str:
    """Why a stage has its model and samples, from the trials seen."""
    setting = allocation[stage]
    parts: list[str] = []
    best_of: dict[str, float] = {}
    for trial in history.trials:
        model = trial.allocation[stage].model
        best_of[model] = max(best_of.get(model, 0.0), trial.score)
    others = sorted(((m, s) for m, s in best_of.items() if m != setting.model), key=lambda item: -item[1])
    if others and setting.model in best_of:
        listed = ", ".join(f"{m} {s:.3f}" for m, s in others)
        parts.append(
            f"best score of any trial with {setting.model} here {best_of[setting.model]:.3f} (others: {listed})"
        )
    own = next((t for t in history.trials if t.allocation == allocation), None)
    points = [p for p in (own.curves.get(stage, ()) if own else ()) if p.coverage >= 0.8]
    if len(points) > 1:
        plateau = plateau_of(points)
        curve = ", ".join(f"{p.samples}: {p.score:.3f}" for p in points)
        shape = f"flat from {plateau}" if plateau < points[-1].samples else f"still rising at {points[-1].samples}"
        parts.append(f"score by samples {curve} ({shape})")
    parts.append(f"costs {amount(space.price(stage, setting), space.unit)} per query")
    return "; ".join(parts)


def explanation(
    space: SearchSpace,
    subject: Contender,
    trials: int,
    search: SelectionEstimate,
    test: IntervalPublic | None,
    rivals: Sequence[Rival],
    remarks: Sequence[str],
) -> str:
    """The plan in a paragraph."""
    expected = search.corrected
    lines = [
        f"{subject.allocation} costs {amount(subject.cost, space.unit)} per query of the "
        f"{amount(space.limit, space.unit)} allowed and scored {subject.score:.3f} on {len(subject.scores)} search "
        f"examples, chosen among {trials} trials (that score is optimistic: it was chosen for being high; "
        f"corrected for the choice it is {expected.estimate:.3f}, 95% interval {expected.low:.3f} to "
        f"{expected.high:.3f})."
    ]
    if test is not None:
        lines.append(
            f"On {test.examples} sealed test examples, read once, it scores {test.estimate:.3f} "
            f"(95% interval {test.low:.3f} to {test.high:.3f}, {test.method})."
        )
    for rival in rivals:
        saving = rival.predicted_cost / subject.cost
        lines.append(f"{rival.words} That costs {saving:.2f} times the plan.")
    return " ".join([*lines, *remarks])
