"""Grid search: every allocation once, in an order that covers the space evenly from the first trial on."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from env.allocation import Allocation, StageSetting
from planner.history import History, RefusedView
from planner.proposers._base import Proposal, Suggestions
from planner.proposers.rivals.rival import Rival, known_allocations

Places = NDArray[np.float64]

MOST_POINTS = 50_000
"""Larger spaces are made coarser: fewer numbers of samples, at growing ratios."""

RATIOS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 1e9)


class GridProposer(Rival):
    """The feasible allocations as a grid, walked in space-filling order (not at random, and not row by row).

    Each next point is the one farthest from all that are known (greedy maximin, the "coffee-house" design of Mueller
    2001), so that a grid cut off after any number of trials is as even as that number allows; with trials enough every
    point of the grid runs once. The distance of two settings: 1 for another model, 1/2 for another strategy or knob
    value, and the difference of log-samples as a part of the stage's range. The first point is the middle of the
    grid; equally far points are taken in an order decided by the seed.

    A space of more than `MOST_POINTS` allocations is made coarser in the number of samples, by the smallest ratio of
    `RATIOS` that is enough; where none is, the grid is a seeded sample of that many allocations.
    """

    kind = "grid"

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`."""
        return await asyncio.to_thread(self._next, sorted(history.tried), known_allocations(history, refused), count)

    def _next(self, tried: Sequence[Allocation], known: set[Allocation], count: int) -> Suggestions:
        points, places = self._grid
        open_ = np.array([p not in known for p in points], dtype=bool)
        gap: Places | None = None
        for row in self._places(tried):
            gap = _nearer(gap, places, row)
        proposals: list[Proposal] = []
        for _ in range(min(count, int(open_.sum()))):
            value = -_distances(places, places.mean(axis=0)) if gap is None else gap
            pick = int(np.argmax(np.where(open_, value, -np.inf)))
            open_[pick] = False
            reason = "the middle of the grid" if gap is None else "the grid point farthest from those taken"
            proposals.append(Proposal(points[pick], self.kind, reason))
            gap = _nearer(gap, places, places[pick])
        return Suggestions(tuple(proposals))

    @cached_property
    def _grid(self) -> tuple[list[Allocation], Places]:
        points = self._points()
        random.Random(f"{self._seed}/grid").shuffle(points)
        return points, self._places(points)

    def _points(self) -> list[Allocation]:
        for ratio in RATIOS:
            coarse = {name: _coarser(settings, ratio) for name, settings in self._space.settings.items()}
            points: list[Allocation] = []
            for allocation in self._space.allocations(coarse):
                points.append(allocation)
                if len(points) > MOST_POINTS:
                    break
            else:
                return points
        return self._space.sample(random.Random(f"{self._seed}/grid"), MOST_POINTS)

    def _places(self, allocations: Sequence[Allocation]) -> Places:
        """Coordinates whose city-block distances are the distances of allocations, shape (n, coordinates)."""
        columns: dict[tuple[str, str, object], int] = {}
        for stage in self._space.pipeline.stages:
            keys: list[tuple[str, object]] = [("samples", None), *(("model", m) for m in stage.models)]
            keys += [("strategy", strategy) for strategy in stage.strategies]
            keys += [(knob, value) for knob, values in stage.knobs.items() for value in values]
            for part, value in keys:
                columns.setdefault((stage.name, part, value), len(columns))
        places = np.zeros((len(allocations), len(columns)))
        spans = {
            stage.name: max(1.0, math.log(stage.samples.values()[-1] / stage.samples.values()[0]))
            for stage in self._space.pipeline.stages
        }
        for row, allocation in enumerate(allocations):
            for name, s in allocation.settings:
                # Two settings with different models differ in two columns, by a half each.
                places[row, columns[name, "samples", None]] = math.log(s.samples) / spans[name]
                places[row, columns[name, "model", s.model]] = 0.5
                places[row, columns[name, "strategy", s.strategy]] = 0.25
                for knob, chosen in s.knobs:
                    places[row, columns[name, knob, chosen]] = 0.25
        return places


def _coarser(settings: Sequence[StageSetting], ratio: float) -> tuple[StageSetting, ...]:
    """The settings whose numbers of samples grow by at least a ratio; the fewest always stays."""
    kept: list[int] = []
    for samples in sorted({s.samples for s in settings}):
        if not kept or samples >= kept[-1] * ratio:
            kept.append(samples)
    return tuple(s for s in settings if s.samples in kept)


def _distances(places: Places, row: Places) -> Places:
    return np.asarray(cdist(places, row[None], "cityblock")[:, 0])


def _nearer(gap: Places | None, places: Places, row: Places) -> Places:
    """Distance of each place to the nearest taken one, once `row` is taken too."""
    distances = _distances(places, row)
    return distances if gap is None else np.minimum(gap, distances)
