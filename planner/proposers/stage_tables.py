"""Settings of each stage as rows of numbers, and how alike two settings of a stage are taken to behave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation, StageSetting
from planner.proposers.ablation import NOTHING, Ablation
from planner.space import SearchSpace

Array = NDArray[np.float64]
Places = NDArray[np.int64]
"""Settings as their places in the table of a stage, shape (n,); allocations as those of their stages, (n, stages)."""

WORTH_PER_SIZE = 0.12
"""Prior mean of what a model e times as large is worth more with one sample, in log-score."""

EXPECTED_GAIN = 0.2
"""Prior mean of what unlimited samples gain over one, in log-score, for a stage's largest model."""

GAIN_PER_SIZE = -0.25
"""How that gain changes, relatively, with a model e times as large: small models have more to gain."""

SAME_GAIN, SAME_STRATEGY = 0.7, 0.7
"""Correlation kept between different models' gains, and different strategies' gains."""

BEND = 0.35
"""Length scale in 1 / sqrt(k) of the bends of a gain curve: k = 1 to 2 is 0.29, 16 to 32 is 0.07."""


@dataclass(frozen=True)
class Spreads:
    """Standard deviations of the parts of a log-score: one hypothesis of how a pipeline behaves."""

    slope: float
    """Of what a model e times as large is worth more."""

    model: float
    """Of what a model is worth beyond its size."""

    gain: float
    """Of what many samples gain over one."""

    bend: float
    """Of the curve's departures from ``1 - 1 / sqrt(k)``."""

    joint: float
    """Of what settings of several stages do together beyond their product."""

    own: float
    """Of what belongs to one allocation alone."""

    carry: float = 0.0
    """Share of what earlier stages are worth that shows in a stage's own score."""

    trust: float = 0.0
    """Correlation of what settings are worth here with what they were worth in an earlier study."""


@dataclass(frozen=True)
class Kernels:
    """How alike settings are in each part of what they are worth; `Spreads` scales them.

    Kept between the different settings alone, shape (a, b) each: n allocations share far fewer settings of a stage.
    """

    slope: Array
    model: Array
    gain: Array
    bend: Array
    joint: Array
    pairs: Places
    """For each two of those asked for, their place in the flattened parts, shape (n, m)."""

    def worth(self, spreads: Spreads) -> Array:
        """Covariance of what a stage's settings are worth, shape (n, m)."""
        between = (
            spreads.slope**2 * self.slope
            + spreads.model**2 * self.model
            + spreads.gain**2 * self.gain
            + spreads.bend**2 * self.bend
        )
        return np.asarray(between.take(self.pairs))

    @property
    def together(self) -> Array:
        """How far they act alike on other stages, in [0, 1], shape (n, m)."""
        return np.asarray(self.joint.take(self.pairs))


class StageTables:
    """Grows with the settings it is shown; one for each study, shared by all rounds.

    Args:
        space: gives the sizes of models; without it all count as equally large.
        ablation: insights to do without.
    """

    def __init__(self, space: SearchSpace | None = None, ablation: Ablation = NOTHING) -> None:
        self._space = space
        self._ablation = ablation
        self._known: list[dict[StageSetting, int]] = []
        self._rows: list[list[tuple[int, int, float, float]]] = []
        self._arrays: dict[int, Array] = {}
        """The rows as numbers, by stage, as far as they were asked for."""

        self._names: dict[tuple[str, str], int] = {}
        self._sizes: dict[str, Mapping[str, float]] = {}
        self._most: dict[str, int] = {}

    @property
    def stages(self) -> int:
        """How many; 0 before the first allocation was seen."""
        return len(self._known)

    def places(self, allocations: Sequence[Allocation]) -> Places:
        """Each allocation as the places of its settings in the tables of its stages, shape (n, stages)."""
        rows = []
        for allocation in allocations:
            if not self._known:
                self._known = [{} for _ in allocation.settings]
                self._rows = [[] for _ in allocation.settings]
            row = []
            for i, (stage, setting) in enumerate(allocation.settings):
                place = self._known[i].get(setting)
                if place is None:
                    place = self._known[i][setting] = len(self._rows[i])
                    self._rows[i].append(self._row(stage, setting))
                row.append(place)
            rows.append(row)
        return np.array(rows, dtype=np.int64).reshape(len(rows), self.stages)

    def mean(self, stage: int, places: Places) -> Array:
        """Prior mean of what settings of a stage are worth, in log-score, shape (n,)."""
        size, gain = self._columns(stage, places)[2:]
        worth = 0.0 if self._ablation.without_insight_1 else WORTH_PER_SIZE
        expected = 0.0 if self._ablation.without_insight_2 else EXPECTED_GAIN
        return np.asarray(worth * size + expected * gain * (1 + GAIN_PER_SIZE * size))

    def kernels(self, stage: int, left: Places, right: Places) -> Kernels:
        """How alike settings of a stage are, for every two of `left`, shape (n,), and `right`, shape (m,)."""
        (a, to_a), (b, to_b) = (np.unique(p, return_inverse=True) for p in (left, right))
        x, y = self._columns(stage, a), self._columns(stage, b)
        same = x[0][:, None] == y[0][None, :]
        alike = np.where(same, 1.0, SAME_GAIN) * np.where(x[1][:, None] == y[1][None, :], 1.0, SAME_STRATEGY)
        close = np.exp(-0.5 * ((x[3][:, None] - y[3][None, :]) / BEND) ** 2)
        gain = alike * np.outer(x[3], y[3])
        slope = np.zeros_like(gain) if self._ablation.without_insight_1 else np.outer(x[2], y[2])
        pairs = to_a[:, None] * len(b) + to_b[None, :]
        return Kernels(slope, same.astype(np.float64), gain, gain * close, alike * close, pairs)

    def variance(self, stage: int, places: Places, spreads: Spreads) -> Array:
        """Prior variance of what settings of a stage are worth, shape (n,): the diagonal of `kernels`."""
        size, gain = self._columns(stage, places)[2:]
        slope = 0.0 if self._ablation.without_insight_1 else spreads.slope
        return np.asarray(slope**2 * size**2 + spreads.model**2 + (spreads.gain**2 + spreads.bend**2) * gain**2)

    def _columns(self, stage: int, places: Places) -> Array:
        """Model, strategy, size and gain of settings, shape (4, n)."""
        rows = self._rows[stage]
        if stage not in self._arrays or self._arrays[stage].shape[1] != len(rows):
            self._arrays[stage] = np.ascontiguousarray(np.array(rows, dtype=np.float64).reshape(-1, 4).T)
        return self._arrays[stage][:, places]

    def _row(self, stage: str, setting: StageSetting) -> tuple[int, int, float, float]:
        """Model code, strategy code, log of the size relative to the stage's largest, gain ``1 - 1 / sqrt(k)``."""
        model = self._names.setdefault((stage, setting.model), len(self._names))
        # One sample is the same draw under every strategy.
        named = f"{setting.strategy if setting.samples > 1 else ''}{setting.knobs or ''}"
        strategy = self._names.setdefault((f"{stage}/strategy", named), len(self._names))
        gain = 1 - setting.samples**-0.5
        if self._ablation.without_insight_2:
            gain = setting.samples / self._most_samples(stage, setting)
        return model, strategy, self._size(stage, setting.model), gain

    def _most_samples(self, stage: str, setting: StageSetting) -> int:
        if stage not in self._most:
            of = self._space.settings[stage] if self._space is not None else (setting,)
            self._most[stage] = max(s.samples for s in of)
        return self._most[stage]

    def _size(self, stage: str, model: str) -> float:
        if self._space is None:
            return 0.0
        if stage not in self._sizes:
            sizes = self._space.sizes(stage)
            largest = max(sizes.values())
            self._sizes[stage] = {name: float(np.log(size / largest)) for name, size in sizes.items()}
        return self._sizes[stage].get(model, 0.0)
