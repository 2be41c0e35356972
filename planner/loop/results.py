"""Per-example results of a study's trials, read from the archive once each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from env.execution.evidence import ExampleEvidence
from planner.archive import Archive
from planner.history import Difference, TrialView

MOST_COMPARED = 12
MOST_EVIDENCE = 16
"""Trials whose whole evidence is held in memory; scores are kept of all that were asked for."""


class TrialResults:
    """Scores and curves by example (see `planner.answered.TrialScores`), and paired differences between trials.

    Trials never change once recorded, so nothing is read twice.
    """

    def __init__(self, archive: Archive, study_id: str) -> None:
        """Of one study."""
        self._archive = archive
        self._study_id = study_id
        self._scores: dict[int, Mapping[str, float]] = {}
        self._evidence: dict[int, tuple[ExampleEvidence, ...]] = {}

    def scores(self, trial_no: int) -> Mapping[str, float]:
        """See `TrialScores.scores`."""
        if trial_no not in self._scores:
            self._scores[trial_no] = {e.example_id: e.score for e in self._of(trial_no) if e.score is not None}
        return self._scores[trial_no]

    def curve(self, trial_no: int, stage: str, samples: int, least_mass: float) -> Mapping[str, float]:
        """See `TrialScores.curve`."""
        return {
            e.example_id: point.value / point.mass
            for e in self._of(trial_no)
            for point in e.curves.get(stage, ())
            if point.k == samples and point.mass >= least_mass
        }

    def differences(self, trials: Sequence[TrialView]) -> Mapping[int, Difference]:
        """How far the best trials lie from the best of them, paired over examples; by trial number."""
        ranked = sorted(trials, key=lambda t: (-t.score, t.cost))[:MOST_COMPARED]
        found: dict[int, Difference] = {}
        for trial in ranked[1:]:
            best, other = self.scores(ranked[0].trial_no), self.scores(trial.trial_no)
            paired = [other[i] - best[i] for i in sorted(best.keys() & other.keys())]
            if len(paired) < 2:
                continue
            mean = sum(paired) / len(paired)
            variance = sum((d - mean) ** 2 for d in paired) / (len(paired) - 1)
            found[trial.trial_no] = Difference(mean, math.sqrt(variance / len(paired)))
        return found

    def problem(self, trial_no: int) -> str:
        """The first reason why an example of a trial failed; empty where none says."""
        return next((e.reason for e in self._of(trial_no) if e.reason), "")

    def _of(self, trial_no: int) -> tuple[ExampleEvidence, ...]:
        if trial_no not in self._evidence:
            if len(self._evidence) >= MOST_EVIDENCE:
                self._evidence.pop(next(iter(self._evidence)))
            self._evidence[trial_no] = self._archive.trials.evidence(self._study_id, trial_no)
        return self._evidence[trial_no]
