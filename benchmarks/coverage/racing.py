"""What racing saves and what it costs, on the same simulated studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.coverage.judging import RESAMPLES, Tally
from benchmarks.coverage.population import Family, Study, studies
from planner.evidence import Contender, choose, corrected_estimates
from planner.loop.racing import BatchRace, Racing, look_points, running_order

FIRST, BATCH = 12, 4
"""Trials of the first batch and of the others, as a study on three stages has them."""


@dataclass
class Raced:
    """Sums over studies."""

    studies: int = 0
    examples: int = 0
    """Run, of trials times examples."""

    possible: int = 0
    same_plan: int = 0
    loss: float = 0.0
    """True score of the plan without racing minus that with it."""

    corrected: Tally = field(default_factory=Tally)
    """Of the plan's corrected search score, where the stopped trials are no contenders."""

    def figures(self) -> dict[str, float]:
        """Means, for JSON."""
        return {
            "examples_run": round(self.examples / self.possible, 4),
            "same_plan": round(self.same_plan / self.studies, 4),
            "true_score_lost": round(self.loss / self.studies, 5),
            "corrected_coverage": self.corrected.figures()["coverage"],
            "corrected_bias": self.corrected.figures()["bias"],
        }


def race(family: Family, rule: Racing, count: int, seed: int) -> Raced:
    """Run `count` studies with and without racing; the trials proposed are the same."""
    raced = Raced()
    for study in studies(family, count, seed):
        finished, examples = _finished(study, rule)
        plain = choose(study.search).chosen.trial_no
        chosen = choose(finished).chosen.trial_no
        corrected = corrected_estimates(finished, RESAMPLES).chosen.corrected
        raced.corrected.add(corrected, float(study.truths[chosen]))
        raced.studies += 1
        raced.examples += examples
        raced.possible += len(study.search) * family.examples
        raced.same_plan += chosen == plain
        raced.loss += float(study.truths[plain] - study.truths[chosen])
    return raced


def _finished(study: Study, rule: Racing) -> tuple[list[Contender], int]:
    """The trials that ran on all examples, and how many examples all trials ran on together."""
    finished: list[Contender] = []
    ids = list(study.search[0].scores)
    order = running_order(len(ids), 0)
    total, start = 0, 0
    while start < len(study.search):
        batch = study.search[start : start + (BATCH if start else FIRST)]
        start += len(batch)
        best = max(finished, key=lambda c: c.score, default=None)
        incumbent = None if best is None else [best.scores[ids[i]] for i in order]
        ran = _run(batch, BatchRace(rule, order, look_points(len(ids)), incumbent), ids)
        total += sum(ran)
        finished += [c for c, examples in zip(batch, ran, strict=True) if examples == len(ids)]
    return finished, total


def _run(batch: Sequence[Contender], race: BatchRace, ids: Sequence[str]) -> list[int]:
    """On how many examples each trial of a batch ran."""
    ran = [len(ids)] * len(batch)
    running = list(range(len(batch)))
    for look in race.looks:
        scores = {i: [batch[i].scores[ids[place]] for place in race.order[:look]] for i in running}
        for index in race.stopped(scores):
            ran[index] = look
            running.remove(index)
    return ran
