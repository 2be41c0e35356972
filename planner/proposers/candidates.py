"""Which allocations are worth a closer look: all of a small space, the likely optima of a large one."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from env.allocation import Allocation
from planner.history import History
from planner.proposers.observations import from_log
from planner.proposers.optimum import best_within
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

    @cached_property
    def _all(self) -> tuple[Allocation, ...] | None:
        """Every allocation, None where there are too many."""
        if self._space.size(MAX_ENUMERATED + 1) > MAX_ENUMERATED:
            return None
        return tuple(self._space.allocations())

    @cached_property
    def _numbers(self) -> dict[Allocation, int]:
        return {allocation: i for i, allocation in enumerate(self._all or ())}

    @cached_property
    def _places(self) -> Places:
        return self._tables.places(self._all or ())

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
        if only or self._all is None:
            allocations: Sequence[Allocation] = list(dict.fromkeys(only or self._likely(surrogate, history)))
            places = self._tables.places(allocations)
            free = np.array([a not in taken for a in allocations], dtype=bool)
        else:
            allocations, places = self._all, self._places
            free = np.ones(len(allocations), dtype=bool)
            free[[n for a in taken if (n := self._numbers.get(a)) is not None]] = False
        if not free.any():
            return Shortlist((), np.zeros(0))
        mean, deviation = surrogate.screen(places)
        value = np.where(free, mean + optimism * deviation, -np.inf)
        order: NDArray[np.int64] = np.argsort(-value, kind="stable")[: min(most, int(free.sum()))]
        exact, _ = surrogate.predict_places(places[order])
        return Shortlist(tuple(allocations[i] for i in order), from_log(exact))

    def _likely(self, surrogate: Surrogate, history: History) -> list[Allocation]:
        """Optima of draws of the surrogate, changes of one stage of the best trials, and some at random."""
        names = [stage.name for stage in self._space.pipeline.stages]
        settings = [self._space.settings[name] for name in names]
        prices = [np.array([self._space.price(n, s) for s in of]) for n, of in zip(names, settings, strict=True)]
        places = self._setting_places()
        generator = np.random.default_rng([self._seed, history.round])
        posterior, _ = surrogate.likely(1)[0]
        found: dict[Allocation, None] = {}
        draws = surrogate.additive(posterior, places).sample(OPTIMA, generator)
        for i in range(OPTIMA):
            best = best_within([of[i] for of in draws], prices, self._space.limit)
            if best is not None:
                allocation = Allocation(
                    tuple((n, settings[j][k]) for j, (n, k) in enumerate(zip(names, best, strict=True)))
                )
                found[allocation] = None
        for trial in sorted(history.trials, key=lambda t: -t.score)[:NEIGHBOURS]:
            for name, of in zip(names, settings, strict=True):
                found.update(dict.fromkeys(trial.allocation.replace(name, s) for s in of))
        for allocation in list(found)[:NEIGHBOURS]:
            for name, of in zip(names, settings, strict=True):
                found.update(dict.fromkeys(allocation.replace(name, s) for s in of))
        found.update(dict.fromkeys(self._space.sample(random.Random(f"{self._seed}/{history.round}"), AT_RANDOM)))
        return [a for a in found if not self._space.faults(a)]

    def _setting_places(self) -> list[Places]:
        """Places of every setting of the space, by stage."""
        names = [stage.name for stage in self._space.pipeline.stages]
        first = Allocation(tuple((n, self._space.settings[n][0]) for n in names))
        return [
            self._tables.places([first.replace(n, s) for s in self._space.settings[n]])[:, i]
            for i, n in enumerate(names)
        ]
