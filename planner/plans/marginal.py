"""What the next step of samples at each stage would buy, read from k-curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from env.allocation import Allocation, StageSetting
from env.execution.evidence import CurvePoint, ExampleEvidence
from planner.archive import TrialRecord
from planner.evidence import paired_difference
from planner.plans.document import MarginalLine
from planner.space import SearchSpace

LEAST_MASS = 0.8
"""Of an example's point, as for curves: below it too few of the outcomes' draws are held."""

LEAST_EXAMPLES = 10
"""With fewer examples that know both numbers of samples nothing is said."""

Evidence = Callable[[int], Sequence[ExampleEvidence]]
"""Reads that of a trial, by its number."""


def marginal_values(
    space: SearchSpace, plan: Allocation, trials: Sequence[TrialRecord], evidence: Evidence
) -> list[MarginalLine]:
    """One line for each stage whose next number of samples some trial's k-curve knows.

    The curve is that of a trial with the plan's model at the stage and enough samples, of several the one that is most
    like the plan elsewhere. Both ends are expectations over the draws held of the same examples, so their difference is
    paired; its interval is `paired_difference`'s.

    Args:
        space: prices the step.
        plan: the allocation to start from.
        trials: of the search split.
        evidence: of these trials.
    """
    lines: list[MarginalLine] = []
    for stage in space.pipeline.stages:
        larger = [k for k in stage.samples.values() if k > plan[stage.name].samples]
        if larger:
            lines += _line(space, plan, stage.name, larger[0], trials, evidence)
    return lines


def _line(
    space: SearchSpace,
    plan: Allocation,
    stage: str,
    following: int,
    trials: Sequence[TrialRecord],
    evidence: Evidence,
) -> list[MarginalLine]:
    setting = plan[stage]
    for trial in _sources(plan, stage, following, trials):
        pairs = _pairs(evidence(trial.trial_no), stage, setting.samples, following)
        if len(pairs) < LEAST_EXAMPLES:
            continue
        more, now = zip(*pairs, strict=True)
        gain = paired_difference(more, now)
        step = StageSetting(setting.model, trial.allocation[stage].strategy, following, trial.allocation[stage].knobs)
        cost = space.cost.stage(space.pipeline.stage(stage), step) - space.price(stage, setting)
        return [
            MarginalLine(
                stage=stage,
                samples=setting.samples,
                next_samples=following,
                gain=gain.estimate,
                low=gain.low,
                high=gain.high,
                examples=gain.examples,
                cost=cost,
                per_unit=gain.estimate / cost * space.limit / 100 if cost > 0 else 0.0,
                within_budget=space.affordable(plan.replace(stage, step)),
                source=trial.trial_no,
            )
        ]
    return []


def _sources(plan: Allocation, stage: str, following: int, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials whose curve at the stage reaches that far with the plan's model there, the likest to the plan first."""
    setting = plan[stage]

    def fits(trial: TrialRecord) -> bool:
        theirs = trial.allocation[stage]
        same = setting.samples == 1 or (theirs.strategy, theirs.knobs) == (setting.strategy, setting.knobs)
        return trial.score is not None and theirs.model == setting.model and theirs.samples >= following and same

    def unlike(trial: TrialRecord) -> tuple[int, float, int]:
        others = sum(trial.allocation[s] != plan[s] for s in plan.stages if s != stage)
        return others, -(trial.score or 0.0), trial.trial_no

    return sorted((t for t in trials if fits(t)), key=unlike)


def _pairs(evidence: Sequence[ExampleEvidence], stage: str, now: int, following: int) -> list[tuple[float, float]]:
    """(score with more samples, score now) of each example that knows both."""
    found: list[tuple[float, float]] = []
    for example in evidence:
        points = {point.k: point for point in (CurvePoint(*p) for p in example.curves.get(stage, ()))}
        before, after = points.get(now), points.get(following)
        if before is None or after is None or min(before.mass, after.mass) < LEAST_MASS:
            continue
        found.append((min(1.0, after.value / after.mass), min(1.0, before.value / before.mass)))
    return found
