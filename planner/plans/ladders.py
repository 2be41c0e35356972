"""Prices every trial in every unit there is data for, and fits measured costs to predicted ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from env.costs import Calibration, CostOptions, Ladder, calibrate
from env.errors import ApportionError
from env.execution.evidence import ExampleEvidence
from env.spec import StudySpec
from env.spec.study import CostUnit
from planner.archive import Archive, TrialRecord


@dataclass(frozen=True)
class TrialLadder:
    """One trial in every unit, per query."""

    trial_no: int
    predicted: Mapping[CostUnit, float]
    """From the planned tokens."""

    measured: Mapping[CostUnit, float]
    """From the tokens used, mean over the scored examples; seconds are those of a clock."""

    timed: int
    """Scored examples whose every draw was timed; the measured seconds are theirs."""


@dataclass(frozen=True)
class StudyLadders:
    """All trials of a study in every unit."""

    units: Mapping[CostUnit, str]
    """How people write them."""

    trials: Mapping[int, TrialLadder]
    """By trial number."""


NO_LADDERS = StudyLadders({}, {})


def fitted(pairs: Sequence[tuple[float, float | None]]) -> Calibration | None:
    """`calibrate` over the (predicted, measured) pairs that are above 0; None where there are none."""
    usable = [(p, m) for p, m in pairs if m is not None and p > 0 and m > 0]
    return calibrate([p for p, _ in usable], [m for _, m in usable]) if usable else None


def study_ladders(archive: Archive, study_id: str, trials: Sequence[TrialRecord]) -> StudyLadders:
    """Price trials from their stored evidence.

    Args:
        archive: holds the study.
        study_id: which.
        trials: of this study.

    Returns:
        None of them where the stored spec is of another version or its checkpoints are gone: then nothing can be
        priced again, and the stored costs remain.
    """
    try:
        spec = StudySpec.model_validate(dict(archive.studies.get(study_id).spec))
        priced = Ladder(spec.pipeline, CostOptions.of(spec.budget.plan))
    except (ValidationError, ApportionError):
        return NO_LADDERS
    evidence = ((t, archive.trials.evidence(study_id, t.trial_no)) for t in trials)
    ladders = {t.trial_no: trial_ladder(priced, t, examples) for t, examples in evidence}
    units = {**priced.units, "seconds": "s"} if any(t.timed for t in ladders.values()) else dict(priced.units)
    return StudyLadders(units, ladders)


def trial_ladder(priced: Ladder, trial: TrialRecord, evidence: Sequence[ExampleEvidence]) -> TrialLadder:
    """One trial in every unit."""
    scored = [e for e in evidence if e.status == "scored"]
    seconds = [e.seconds for e in scored if e.seconds is not None]
    return TrialLadder(
        trial.trial_no,
        priced.of(trial.allocation),
        priced.mean(
            trial.allocation, [e.calls for e in scored], math.fsum(seconds) / len(seconds) if seconds else None
        ),
        len(seconds),
    )


@dataclass(frozen=True)
class Comparison:
    """Measured against predicted costs of the trials."""

    title: str
    predicted_unit: str
    measured_unit: str
    pairs: list[tuple[str, float, float]]
    """For each trial its name, the predicted and the measured cost."""

    fit: Calibration | None

    @property
    def words(self) -> str:
        """What the fit says, with the number of trials behind it."""
        trials = f"{len(self.pairs)} trial" if len(self.pairs) == 1 else f"{len(self.pairs)} trials"
        if self.fit is None:
            return f"{trials}; no fit."
        interval = "" if self.fit.low is None else f" (95% interval {self.fit.low:.4g} to {self.fit.high:.4g})"
        if self.predicted_unit == self.measured_unit:
            text = f"Over {trials}, measured cost is {self.fit.factor:.4g} times the predicted cost{interval}."
        else:
            text = (
                f"Over {trials}, one {self.predicted_unit} predicted became {self.fit.factor:.4g} {self.measured_unit} "
                f"measured{interval}."
            )
        correlation = self.fit.rank_correlation
        if correlation is None:
            return text
        return f"{text} Rank correlation {correlation:.3f}: {_order(correlation)}."


def _order(correlation: float) -> str:
    """What a rank correlation means for choosing by predictions."""
    if correlation >= 0.95:
        return "predictions order the trials as measurements do"
    if correlation >= 0.7:
        return "predictions mostly order the trials as measurements do"
    return "predictions do not order the trials as measurements do"


def comparisons(trials: Sequence[TrialRecord], ladders: StudyLadders, unit: str) -> list[Comparison]:
    """What the report holds against each other: the plan's unit with itself, and with a clock where there was one.

    Idealized runtime is what a clock is compared with where an accelerator is named; the plan's own unit elsewhere.
    """
    own = [(t.trial_no, t.predicted_cost, t.measured_cost) for t in trials]
    found = [_comparison("Predicted and measured cost", unit, unit, own)]
    timed = [t for t in trials if t.trial_no in ladders.trials and ladders.trials[t.trial_no].timed]
    if timed:
        ideal = ladders.units.get("runtime")
        pairs: list[tuple[int, float, float | None]] = []
        for t in timed:
            ladder = ladders.trials[t.trial_no]
            predicted = ladder.predicted["runtime"] if ideal else t.predicted_cost
            pairs.append((t.trial_no, predicted, ladder.measured["seconds"]))
        found.append(_comparison("Predicted cost and measured seconds", ideal or unit, "s", pairs))
    return [c for c in found if c.pairs]


def own_comparison(values: Sequence[tuple[int, float, float | None]], unit: str) -> Comparison | None:
    """Measured against predicted costs in the plan's own unit; None before the first measurement.

    Args:
        values: (number, predicted, measured) of each trial.
        unit: of both.
    """
    found = _comparison("Predicted and measured cost", unit, unit, values)
    return found if found.pairs else None


def _comparison(
    title: str, predicted_unit: str, measured_unit: str, values: Sequence[tuple[int, float, float | None]]
) -> Comparison:
    pairs = [(f"trial {n}", p, m) for n, p, m in values if m is not None and p > 0 and m > 0]
    return Comparison(title, predicted_unit, measured_unit, pairs, fitted([(p, m) for _, p, m in pairs]))
