"""A Gaussian process over allocations: what a setting not yet tried is expected to score, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation, StageSetting
from planner.history import TrialView

Array = NDArray[np.float64]

LENGTH = 0.22
"""Length scale in 1 / sqrt(k): k = 1 to 2 is 0.29, 16 to 32 is 0.07, so curves are stiff where they are flat."""

SAME_MODEL = 0.45
"""Correlation kept between two models of one stage (and between two strategies) at the same number of samples."""

MIXES = (0.2, 0.5, 0.8)
"""Shares of variance that stages explain together (interaction) rather than one by one; chosen by evidence."""

TRIAL_NOISE = 0.006
"""Noise of a trial's mean score against other trials on the same examples (shared examples, mostly shared draws)."""

CURVE_NOISE = 0.015
"""Noise of a point read off a k-curve at full coverage."""

LEAST_COVERAGE = 0.8


@dataclass(frozen=True)
class Observation:
    """A score that was seen, with the noise it carries."""

    allocation: Allocation
    score: float
    noise: float


def observations(trials: Sequence[TrialView]) -> list[Observation]:
    """Trials and the points of their k-curves that rest on enough coverage; one each, the least noisy kept."""
    seen: dict[Allocation, Observation] = {}
    for trial in trials:
        seen[trial.allocation] = Observation(trial.allocation, trial.score, TRIAL_NOISE)
    for trial in trials:
        for stage, points in trial.curves.items():
            for point in points:
                if point.coverage < LEAST_COVERAGE:
                    continue
                old = trial.allocation[stage]
                strategy = old.strategy
                allocation = trial.allocation.replace(stage, StageSetting(old.model, strategy, point.samples))
                noise = CURVE_NOISE / point.coverage + 0.1 * (1 - point.coverage)
                if allocation not in seen or seen[allocation].noise > noise:
                    seen[allocation] = Observation(allocation, point.score, noise)
    return list(seen.values())


class Surrogate:
    """Gaussian process on scores with a kernel made for stages.

    Per stage, two settings correlate by model and strategy (kept share `SAME_MODEL` where they differ) times a squared
    exponential in 1 / sqrt(k), so that more samples saturate (insight 2). Over stages the kernel is a mixture of their
    mean (each stage has its own best model, insight 1) and their product (stages interact, insight 3); the share of the
    product is picked by marginal likelihood (Rasmussen and Williams 2006, eq. 2.30).
    """

    def __init__(self, data: Sequence[Observation]) -> None:
        if not data:
            raise ValueError("a surrogate needs at least one observation")
        self._codes: dict[tuple[str, str, str], int] = {}
        self._x = self._encode([o.allocation for o in data])
        scores = np.array([o.score for o in data])
        self._mean = float(scores.mean())
        self._scale = float(max(scores.std(), 0.02))
        self._y = (scores - self._mean) / self._scale
        noise = np.array([o.noise for o in data]) / self._scale
        best: tuple[float, float, Any, Any] | None = None
        for mix in MIXES:
            gram = self._kernel(self._x, self._x, mix) + np.diag(noise**2 + 1e-8)
            root = np.linalg.cholesky(gram)
            weights = np.linalg.solve(root.T, np.linalg.solve(root, self._y))
            evidence = float(-0.5 * self._y @ weights - np.log(np.diag(root)).sum())
            if best is None or evidence > best[0]:
                best = (evidence, mix, root, weights)
        assert best is not None
        _, self._mix, self._root, self._weights = best

    def predict(self, allocations: Sequence[Allocation]) -> tuple[Array, Array]:
        """Posterior mean and standard deviation of the score of each allocation, shape (n,) each."""
        x = self._encode(allocations)
        cross = self._kernel(x, self._x, self._mix)
        mean = cross @ self._weights
        solved = np.linalg.solve(self._root, cross.T)
        variance = np.clip(1.0 - (solved**2).sum(axis=0), 1e-10, None)
        return np.asarray(self._mean + self._scale * mean), np.asarray(self._scale * np.sqrt(variance))

    def _encode(self, allocations: Sequence[Allocation]) -> Array:
        """Shape (n, stages, 3): model code, strategy code, 1 / sqrt(k)."""
        rows = []
        for allocation in allocations:
            row = []
            for stage, s in allocation.settings:
                model = self._codes.setdefault((stage, "model", s.model), len(self._codes))
                # One sample is the same draw under every strategy.
                named = s.strategy if s.samples > 1 else ""
                strategy = self._codes.setdefault((stage, "strategy", named), len(self._codes))
                row.append((float(model), float(strategy), s.samples**-0.5))
            rows.append(row)
        return np.array(rows, dtype=np.float64)

    @staticmethod
    def _kernel(left: Array, right: Array, mix: float) -> Array:
        total = np.zeros((len(left), len(right)))
        product = np.ones_like(total)
        stages = left.shape[1]
        for stage in range(stages):
            a, b = left[:, stage], right[:, stage]
            same = np.where(a[:, None, 0] == b[None, :, 0], 1.0, SAME_MODEL)
            same *= np.where(a[:, None, 1] == b[None, :, 1], 1.0, SAME_MODEL)
            distance = (a[:, None, 2] - b[None, :, 2]) / LENGTH
            one = same * np.exp(-0.5 * distance**2)
            total += one
            product *= one
        return np.asarray((1 - mix) * total / stages + mix * product)
