"""A Gaussian process over allocations: what a setting not yet tried is expected to score, and how sure that is.

Stages multiply: an answer is right where every stage was, so a weak stage scales what the others can do. On the
logarithm of the score that product is a sum, which a few trials a stage are enough to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation
from planner.history import TrialView

Array = NDArray[np.float64]

OFFSET = 0.05
"""Added to a score before its logarithm is taken: scores near 0 differ by noise, which must not be magnified."""

MODEL_SPREAD = (0.5, 1.2)
"""Standard deviations tried for what a stage's model is worth, in log-score; chosen by evidence, like the next two."""

GAIN_SPREAD = (0.2, 0.5)
"""For what many samples gain over one."""

JOINT_SPREAD = (0.05, 0.25)
"""For what settings of several stages do together beyond their product."""

EXPECTED_GAIN = 0.15
"""Prior mean of what unlimited samples gain over one at a stage, in log-score: samples are more likely to help."""

SAME_MODEL, SAME_GAIN, SAME_STRATEGY = 0.3, 0.5, 0.7
"""Correlation kept between different models' worth, different models' gains, and different strategies' gains."""

BEND = 0.35
"""Length scale in 1 / sqrt(k) of the bends of a gain curve: k = 1 to 2 is 0.29, 16 to 32 is 0.07."""

SHARED_NOISE = 0.5
"""Noise of a trial's score against other trials on the same examples, as a share of its standard error: the examples
are shared, what the stages happened to draw for them is not."""

LEAST_NOISE = 0.003

MISSING_NOISE = 0.3
"""Standard deviation of what an outcome without downstream draws scores, as a share of what the others do."""

LEAST_COVERAGE = 0.8

VAGUE = 100.0
"""Prior variance of the overall level, in squared log-score: nothing is assumed of it."""


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
        seen[trial.allocation] = Observation(trial.allocation, trial.score, _noise(trial))
    for trial in trials:
        for stage, points in trial.curves.items():
            for point in points:
                if point.coverage < LEAST_COVERAGE:
                    continue
                old = trial.allocation[stage]
                allocation = trial.allocation.replace(stage, old.with_samples(point.samples))
                noise = float(np.hypot(_noise(trial), MISSING_NOISE * point.score * point.missing))
                if allocation not in seen or seen[allocation].noise > noise:
                    seen[allocation] = Observation(allocation, point.expected, noise)
    return list(seen.values())


def _noise(trial: TrialView) -> float:
    # A trial that was stopped ran on other examples than the rest: nothing of its error is shared.
    return max(LEAST_NOISE, (1.0 if trial.stopped else SHARED_NOISE) * trial.standard_error)


def to_log(score: Array | float) -> Array:
    """``log(score + OFFSET)``, the scale on which stages add up."""
    return np.asarray(np.log(np.asarray(score) + OFFSET))


def from_log(value: Array | float) -> Array:
    """The score behind a value of `to_log`, within 0 and 1."""
    return np.asarray(np.clip(np.exp(np.asarray(value)) - OFFSET, 0.0, 1.0))


class Surrogate:
    """Gaussian process on log-scores (`to_log`) with a kernel made for stages.

    The log-score is a level, plus for each stage what its model is worth with one sample (insight 1), plus what more
    samples gain, plus what the stages' settings do together (insight 3). The gain is a random function of
    ``x = 1 / sqrt(k)`` that is 0 at k = 1 and saturates (insight 2): its kernel is ``(1 - x)(1 - x')`` times one half
    plus half a squared exponential. What one model or strategy gains says something about what another would
    (`SAME_GAIN`, `SAME_STRATEGY`). The three spreads are picked by marginal likelihood, the level integrated out
    (Rasmussen and Williams 2006, eq. 2.30 and 2.45).
    """

    def __init__(self, data: Sequence[Observation]) -> None:
        if not data:
            raise ValueError("a surrogate needs at least one observation")
        self._codes: dict[tuple[str, str, str], int] = {}
        self._x = self._encode([o.allocation for o in data])
        scores = np.array([o.score for o in data])
        values = to_log(scores) - _expected_gain(self._x)
        # The noise of log(score + OFFSET) is that of the score over (score + OFFSET), to first order.
        noise = np.array([o.noise for o in data]) / (scores + OFFSET)
        parts = _kernels(self._x, self._x)
        best: tuple[float, Any, Any, float, Any] | None = None
        for spreads in product(MODEL_SPREAD, GAIN_SPREAD, JOINT_SPREAD):
            root = np.linalg.cholesky(_weighted(parts, spreads) + np.diag(noise**2 + 1e-6))
            white = np.linalg.solve(root, np.stack([np.ones_like(values), values], axis=1))
            level = float(white[:, 0] @ white[:, 1] / (white[:, 0] @ white[:, 0] + 1 / VAGUE))
            rest = white[:, 1] - level * white[:, 0]
            evidence = float(-0.5 * rest @ rest - np.log(np.diag(root)).sum())
            if best is None or evidence > best[0]:
                best = (evidence, spreads, root, level, np.linalg.solve(root.T, rest))
        assert best is not None
        _, self._spreads, self._root, self._level, self._weights = best

    def predict(self, allocations: Sequence[Allocation]) -> tuple[Array, Array]:
        """Posterior mean and standard deviation of each allocation's log-score (`to_log`), shape (n,) each."""
        x = self._encode(allocations)
        cross = _weighted(_kernels(x, self._x), self._spreads)
        mean = self._level + _expected_gain(x) + cross @ self._weights
        solved = np.linalg.solve(self._root, cross.T)
        variance = np.clip(_variances(x, self._spreads) - (solved**2).sum(axis=0), 1e-10, None)
        return np.asarray(mean), np.asarray(np.sqrt(variance))

    def _encode(self, allocations: Sequence[Allocation]) -> Array:
        """Shape (n, stages, 3): model code, strategy code, 1 / sqrt(k)."""
        rows = []
        for allocation in allocations:
            row = []
            for stage, s in allocation.settings:
                model = self._codes.setdefault((stage, "model", s.model), len(self._codes))
                # One sample is the same draw under every strategy.
                named = f"{s.strategy if s.samples > 1 else ''}{s.knobs or ''}"
                strategy = self._codes.setdefault((stage, "strategy", named), len(self._codes))
                row.append((float(model), float(strategy), s.samples**-0.5))
            rows.append(row)
        return np.array(rows, dtype=np.float64)


Spreads = tuple[float, float, float]
"""Of a model's worth, of the gain from samples, and of what stages do together."""


def _expected_gain(x: Array) -> Array:
    return np.asarray(EXPECTED_GAIN * (1 - x[:, :, 2]).sum(axis=1))


def _kernels(left: Array, right: Array) -> tuple[Array, Array, Array]:
    """Unscaled kernels of worth, gain and joint effect, shape (n, m) each."""
    worth = np.zeros((len(left), len(right)))
    gain, joint = np.zeros_like(worth), np.ones_like(worth)
    for stage in range(left.shape[1]):
        a, b = left[:, stage], right[:, stage]
        model = a[:, None, 0] == b[None, :, 0]
        strategy = a[:, None, 1] == b[None, :, 1]
        close = np.exp(-0.5 * ((a[:, None, 2] - b[None, :, 2]) / BEND) ** 2)
        worth += np.where(model, 1.0, SAME_MODEL)
        alike = np.where(model, 1.0, SAME_GAIN) * np.where(strategy, 1.0, SAME_STRATEGY)
        gain += alike * np.outer(1 - a[:, 2], 1 - b[:, 2]) * 0.5 * (1 + close)
        joint *= np.where(model, 1.0, SAME_GAIN) * np.where(strategy, 1.0, SAME_STRATEGY) * close
    return worth, gain, joint


def _weighted(parts: tuple[Array, Array, Array], spreads: Spreads) -> Array:
    return np.asarray(sum(spread**2 * part for spread, part in zip(spreads, parts, strict=True)))


def _variances(x: Array, spreads: Spreads) -> Array:
    """Prior variance of each allocation: the diagonal of `_kernels`."""
    worth, gain, joint = spreads
    return np.asarray(worth**2 * x.shape[1] + gain**2 * ((1 - x[:, :, 2]) ** 2).sum(axis=1) + joint**2)
