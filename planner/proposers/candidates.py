"""Which allocations are worth a closer look: all of a small space, the likely optima of a large one.

Allocations are rows of numbers here, each the place of a stage's setting in `SearchSpace.settings`; objects are made
of those alone that come out on top.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation, StageSetting
from planner.history import History, best_of
from planner.proposers.observations import from_log
from planner.proposers.optimum import best_of_draws
from planner.proposers.stage_tables import Array, Places, StageTables
from planner.proposers.surrogate import Surrogate
from planner.space import SearchSpace

MAX_ENUMERATED = 20_000
"""Spaces up to this size are screened whole."""

OPTIMA = 96
"""Draws of the surrogate whose exact optima become candidates in a larger space."""

NEIGHBOURS = 3
"""Best trials whose changes of one stage are candidates in a larger space."""

AT_RANDOM = 500


@dataclass(frozen=True)
class Shortlist:
    """Allocations that have not run, most promising first."""

    allocations: tuple[Allocation, ...]
    mean: Array
    """Expected score of each."""


class Candidates:
    """Draws up shortlists for one study."""

    def __init__(self, space: SearchSpace, tables: StageTables, seed: int) -> None:
        self._space = space
        self._tables = tables
        self._seed = seed
        self._names = [stage.name for stage in space.pipeline.stages]

    @cached_property
    def _settings(self) -> list[tuple[StageSetting, ...]]:
        return [self._space.settings[name] for name in self._names]

    @cached_property
    def _numbers(self) -> list[dict[StageSetting, int]]:
        return [{setting: i for i, setting in enumerate(of)} for of in self._settings]

    @cached_property
    def _prices(self) -> list[Array]:
        return [
            np.array([self._space.price(n, s) for s in of]) for n, of in zip(self._names, self._settings, strict=True)
        ]

    @cached_property
    def _all(self) -> Places | None:
        """Every allocation, None where there are too many."""
        if self._space.size(MAX_ENUMERATED + 1) > MAX_ENUMERATED:
            return None
        return np.array([self._row(a) for a in self._space.allocations()], dtype=np.int64)

    @cached_property
    def _table_places(self) -> list[Places]:
        """By stage, the places of its settings in the surrogate's tables."""
        first = self._allocation([0] * len(self._names))
        return [
            self._tables.places([first.replace(name, s) for s in of])[:, i]
            for i, (name, of) in enumerate(zip(self._names, self._settings, strict=True))
        ]

    def _allocation(self, row: Sequence[int]) -> Allocation:
        return Allocation(tuple((n, of[i]) for n, of, i in zip(self._names, self._settings, row, strict=True)))

    def _row(self, allocation: Allocation) -> list[int] | None:
        """None where a setting is not one of the space's."""
        row = [of.get(setting) for of, (_, setting) in zip(self._numbers, allocation.settings, strict=True)]
        return None if None in row else [i for i in row if i is not None]

    def shortlist(
        self,
        surrogate: Surrogate,
        history: History,
        taken: Collection[Allocation],
        most: int,
        optimism: float,
        only: Sequence[Allocation] | None = None,
    ) -> Shortlist:
        """The candidates with the highest mean plus `optimism` deviations.

        Args:
            surrogate: what is believed.
            history: the study so far.
            taken: allocations to leave out.
            most: how many.
            optimism: deviations added to the mean.
            only: to choose among; all of the space where None or empty.
        """
        if only:
            found = [row for a in only if (row := self._row(a)) is not None]
            rows = _distinct(np.array(found, dtype=np.int64).reshape(-1, len(self._names)))
        else:
            rows = self._likely(surrogate, history) if self._all is None else self._all
        if not len(rows):
            return Shortlist((), np.zeros(0))
        mean, deviation = surrogate.screen(self._places(rows))
        value = mean + optimism * deviation
        # Draws and changes are made within the budget, not within the other constraints.
        unsure = not only and self._all is None and self._space.limits.any
        picked: list[int] = []
        allocations: list[Allocation] = []
        for i in _ranked(value, most):
            allocation = self._allocation(rows[i].tolist())
            if allocation not in taken and not (unsure and self._space.limits.broken(allocation)):
                picked.append(int(i))
                allocations.append(allocation)
                if len(picked) == most:
                    break
        if not picked:
            return Shortlist((), np.zeros(0))
        return Shortlist(tuple(allocations), from_log(surrogate.means(self._places(rows[picked]))))

    def _places(self, rows: Places) -> Places:
        return np.stack([of[rows[:, i]] for i, of in enumerate(self._table_places)], axis=1)

    def _likely(self, surrogate: Surrogate, history: History) -> Places:
        """Optima of draws of the surrogate, changes of one stage of the best trials, and some at random."""
        generator = np.random.default_rng([self._seed, history.round])
        posterior, _ = surrogate.likely(1)[0]
        draws = surrogate.additive(posterior, self._table_places).sample(OPTIMA, generator)
        found = list(dict.fromkeys(best_of_draws(draws, self._prices, self._space.limit)))
        best = [tuple(row) for t in best_of(history.trials, NEIGHBOURS) if (row := self._row(t.allocation)) is not None]
        changed = [self._changes(row) for row in (*best, *(best + found)[:NEIGHBOURS])]
        parts = [np.array(found, dtype=np.int64).reshape(-1, len(self._names)), *changed, self._at_random(history)]
        rows = _distinct(np.concatenate(parts))
        prices = sum((of[rows[:, i]] for i, of in enumerate(self._prices)), np.zeros(len(rows)))
        return np.asarray(rows[prices <= self._space.limit * (1 + 1e-12)])

    def _changes(self, row: Sequence[int]) -> Places:
        """A row with one stage changed to each of its settings."""
        changed = []
        for stage, of in enumerate(self._settings):
            rows = np.tile(np.array(row, dtype=np.int64), (len(of), 1))
            rows[:, stage] = np.arange(len(of))
            changed.append(rows)
        return np.concatenate(changed)

    def _at_random(self, history: History) -> Places:
        """Each stage drawn among what the budget still allows, stages in random order; see `SearchSpace.sampled`."""
        if self._space.limits.any:
            sampled = self._space.sample(random.Random(f"{self._seed}/{history.round}"), AT_RANDOM)
            return np.array([self._row(a) for a in sampled], dtype=np.int64).reshape(-1, len(self._names))
        generator = np.random.default_rng([self._seed, history.round, AT_RANDOM])
        stages, each = len(self._names), np.arange(AT_RANDOM)
        order = generator.permuted(np.tile(np.arange(stages), (AT_RANDOM, 1)), axis=1)
        floors = np.array([of[0] for of in self._prices])
        left = np.full(AT_RANDOM, self._space.limit - floors.sum())
        rows = np.zeros((AT_RANDOM, stages), dtype=np.int64)
        for turn in range(stages):
            for stage, prices in enumerate(self._prices):
                mine = each[order[:, turn] == stage]
                room = left[mine] + floors[stage]
                # Rounding must not leave a stage without its cheapest.
                affordable = np.maximum(1, np.searchsorted(prices, room, side="right"))
                rows[mine, stage] = (generator.random(len(mine)) * affordable).astype(np.int64)
                left[mine] = room - prices[rows[mine, stage]]
        return rows


def _distinct(rows: Places) -> Places:
    """Every row once, where it came first."""
    _, first = np.unique(rows, axis=0, return_index=True)
    return np.asarray(rows[np.sort(first)])


def _ranked(value: Array, most: int) -> Iterator[int]:
    """Positions of the highest values, in order; sorts a few times as many as are wanted, and more if asked."""
    size = min(len(value), 4 * most)
    high: NDArray[np.int64] = np.sort(np.argpartition(-value, size - 1)[:size])
    ranked = high[np.argsort(-value[high], kind="stable")]
    yield from (int(i) for i in ranked)
    rest = np.delete(np.arange(len(value)), high)
    yield from (int(i) for i in rest[np.argsort(-value[rest], kind="stable")])
