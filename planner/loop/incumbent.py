"""Whom a batch races against: the best earlier trial that may become the plan."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from planner.archive import TrialRecord
from planner.evidence.choice import MIN_SHARE
from planner.loop.constraints import measures_latency
from planner.loop.context import StudyContext
from planner.loop.racing import BatchRace, look_points, running_order


class Incumbents:
    """Sets up the races of one study's batches; looks at every trial once."""

    def __init__(self, context: StudyContext) -> None:
        """Of one study."""
        self._context = context
        self._trials: Sequence[TrialRecord] = ()
        self._looked_at = 0
        self._best: TrialRecord | None = None

    def race(self, numbers: Sequence[int]) -> BatchRace | None:
        """The race of a batch against the incumbent and among itself; None where the spec has none.

        Args:
            numbers: of the batch's trials, in its order.
        """
        context = self._context
        rule, constraints = context.spec.budget.search.racing, context.spec.constraints
        examples = len(context.splits.search)
        looks = look_points(examples)
        if rule == "off" or not looks:
            return None
        trials, first = context.journal().trials, min(numbers)
        newest = takewhile(lambda t: t.trial_no >= first, reversed(trials))
        ran = {t.trial_no: t.scored + t.failed for t in newest if t.status != "cut"}
        best = self._before(trials, first)
        order = running_order(examples, context.spec.seed)
        incumbent: list[float | None] | None = None
        if best is not None:
            scores = {e.example_id: e.score for e in context.archive.trials.evidence(context.study_id, best.trial_no)}
            incumbent = [scores.get(context.splits.search[i].id) for i in order]
        settled = {i: ran[number] for i, number in enumerate(numbers) if number in ran}
        judged_later = bool(constraints.stage_quality) or measures_latency(constraints)
        return BatchRace(rule, order, looks, incumbent, not judged_later, settled)

    def _before(self, trials: Sequence[TrialRecord], first: int) -> TrialRecord | None:
        """The best of those with numbers below `first`; the earlier of equals."""
        # A journal that had to read everything again has another list.
        if trials is not self._trials or (self._looked_at and trials[self._looked_at - 1].trial_no >= first):
            self._trials, self._looked_at, self._best = trials, 0, None
        while self._looked_at < len(trials) and trials[self._looked_at].trial_no < first:
            trial = trials[self._looked_at]
            self._looked_at += 1
            if self._able(trial) and (self._best is None or (trial.score or 0.0) > (self._best.score or 0.0)):
                self._best = trial
        return self._best

    def _able(self, trial: TrialRecord) -> bool:
        enough = trial.scored >= MIN_SHARE * len(self._context.splits.search)
        return trial.score is not None and not trial.stopped and enough and self._context.feasible(trial)
