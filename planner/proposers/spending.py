"""What a trial would cost in draws that the bank does not hold yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation, StageSetting
from planner.history import TrialView

CHANGED = 0.35
"""Share of the examples whose upstream answer another setting upstream changes: their later draws must be made anew."""

MAX_TRIALS = 150
"""The newest trials, whose draws are looked at: a price need not be exact, and must be quick."""


class NewDraws:
    """Expected new draws of allocations, after some trials.

    The first stage's draws serve every allocation that gives it the same model. A later stage's draws serve where what
    stands before it is the same: for all examples where the stages before have the same settings as in a trial, else
    for those whose upstream answer does not change.

    Args:
        trials: of the study.
        reused: whether draws are kept at all.
    """

    def __init__(self, trials: Sequence[TrialView], reused: bool = True) -> None:
        self._exact: dict[tuple[object, ...], int] = {}
        self._loose: dict[tuple[object, ...], int] = {}
        for trial in trials[-MAX_TRIALS:] if reused else ():
            for i, (stage, setting) in enumerate(trial.allocation.settings):
                source = _source(stage, setting)
                exact = (source, trial.allocation.settings[:i])
                self._exact[exact] = max(self._exact.get(exact, 0), setting.samples)
                self._loose[source] = max(self._loose.get(source, 0), setting.samples)

    def per_example(self, allocation: Allocation) -> float:
        """Expected new draws of one example."""
        total = 0.0
        for i, (stage, setting) in enumerate(allocation.settings):
            source = _source(stage, setting)
            exact = self._exact.get((source, allocation.settings[:i]))
            if exact is not None:
                total += max(0, setting.samples - exact)
                continue
            loose = max(0, setting.samples - self._loose.get(source, 0))
            total += CHANGED * setting.samples + (1 - CHANGED) * loose if i else loose
        return total

    def relative(self, allocations: Sequence[Allocation]) -> NDArray[np.float64]:
        """One more than each allocation's new draws, as a share of the mean of all, shape (n,)."""
        expected = np.array([self.per_example(a) for a in allocations]) + 1.0
        return np.asarray(expected / expected.mean())


def _source(stage: str, setting: StageSetting) -> tuple[object, ...]:
    """What must be equal for draws to serve both: strategies that sample alike share them, others ask on their own."""
    return stage, setting.model, setting.knobs
