"""Runs the planner's own statistics on simulated studies and counts what they got right."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from benchmarks.coverage.population import Family, Study, studies
from planner.evidence import (
    Contender,
    Interval,
    choose,
    compare,
    corrected_estimates,
    mean_interval,
)

RESAMPLES = 500
"""Of a simulated study's correction; fewer than a real one's, as thousands are run."""


@dataclass
class Tally:
    """How often an interval held the truth, and how far the estimate was off on average."""

    intervals: int = 0
    held: int = 0
    above: int = 0
    """Intervals that lay above the truth: too good a claim."""

    below: int = 0
    error: float = 0.0
    """Sum of estimate minus truth."""

    width: float = 0.0

    def add(self, interval: Interval, truth: float) -> None:
        """Judge one interval."""
        self.intervals += 1
        self.held += interval.low <= truth <= interval.high
        self.above += truth < interval.low
        self.below += truth > interval.high
        self.error += interval.estimate - truth
        self.width += interval.high - interval.low

    def joined(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.intervals + other.intervals,
            self.held + other.held,
            self.above + other.above,
            self.below + other.below,
            self.error + other.error,
            self.width + other.width,
        )

    def figures(self) -> dict[str, float]:
        """Shares and means, for JSON."""
        n = max(1, self.intervals)
        return {
            "intervals": self.intervals,
            "coverage": round(self.held / n, 4),
            "above": round(self.above / n, 4),
            "below": round(self.below / n, 4),
            "bias": round(self.error / n, 5),
            "mean_width": round(self.width / n, 4),
        }


@dataclass
class Record:
    """What a family's studies came to."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    """Of the plan against the runner-up: right, wrong, or not told apart."""

    def tally(self, name: str) -> Tally:
        """The tally of that name, made on first use."""
        return self.tallies.setdefault(name, Tally())

    def joined(self, other: Record) -> Record:
        """Both together."""
        names = [*self.tallies, *(n for n in other.tallies if n not in self.tallies)]
        tallies = {n: self.tallies.get(n, Tally()).joined(other.tallies.get(n, Tally())) for n in names}
        return Record(tallies, self.verdicts + other.verdicts)


def judge(family: Family, count: int, seed: int) -> Record:
    """Run `count` studies of a family through choice, test and correction."""
    record = Record()
    for study in studies(family, count, seed):
        _judge_study(study, record)
    return record


def _judge_study(study: Study, record: Record) -> None:
    choice = choose(study.search)
    plan, truth = choice.chosen, study.truths[choice.chosen.trial_no]
    record.tally("test score of the plan").add(_mean(study.test[plan.trial_no]), truth)
    # A trial picked by its number, whatever it scored: an interval holds for what was not chosen by its score.
    record.tally("a trial's mean").add(_mean(study.search[0]), study.truths[0])
    record.tally("search score of the plan, as if not chosen").add(_mean(plan), truth)
    corrections = corrected_estimates(study.search, RESAMPLES)
    record.tally("search score of the plan, corrected").add(corrections.chosen.corrected, truth)
    best = study.truths[choice.best.trial_no]
    record.tally("search score of the best, corrected").add(corrections.best.corrected, best)
    rival = choice.runner_up
    compared = compare(study.test[plan.trial_no], study.test[rival.trial_no]) if rival is not None else None
    if rival is None or compared is None:
        return
    difference = float(truth - study.truths[rival.trial_no])
    record.tally("plan minus runner-up, test").add(compared.difference, difference)
    if compared.verdict == "cannot be told apart":
        record.verdicts["not told apart"] += 1
    else:
        right = difference > 0 if compared.verdict == "better" else difference < 0
        record.verdicts["right" if right else "wrong"] += 1


def _mean(contender: Contender) -> Interval:
    return mean_interval(list(contender.scores.values()))
