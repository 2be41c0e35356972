"""The search space: which settings each stage may have, and which allocations the plan budget buys."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from env.allocation import Allocation, StageSetting
from env.costs import CostOptions, PlanCost
from env.spec import StudySpec
from env.strategies import STRATEGIES, StagePlan
from env.strategies.settings import normal_setting, setting_faults, stage_settings

MAX_ENUMERATED = 300_000
"""Allocations a proposer may list one by one; larger spaces are sampled."""


class SearchSpace:
    """Feasible allocations of a study."""

    def __init__(self, spec: StudySpec) -> None:
        self.pipeline = spec.pipeline
        self.cost = PlanCost(spec.pipeline, spec.budget.plan.unit, CostOptions.of(spec.budget.plan))
        self.limit = spec.budget.plan.limit
        self._stages = spec.pipeline.stages

    @property
    def unit(self) -> str:
        """The unit of costs and of the limit."""
        return self.cost.unit

    @cached_property
    def settings(self) -> dict[str, tuple[StageSetting, ...]]:
        """By stage, every setting that fits the budget while all other stages take their cheapest, cheapest first.

        Strategies that do the same with one sample (vote and union of one draw) are kept apart only above one sample.
        """
        floor = sum(min(self._priced(name).values()) for name in self._all)
        result: dict[str, tuple[StageSetting, ...]] = {}
        for name in self._all:
            priced = self._priced(name)
            room = self.limit - (floor - min(priced.values()))
            result[name] = tuple(
                sorted((s for s, price in priced.items() if price <= room), key=lambda s: (priced[s], s))
            )
        return result

    @cached_property
    def _all(self) -> dict[str, tuple[StageSetting, ...]]:
        return {stage.name: stage_settings(stage) for stage in self._stages}

    def _priced(self, stage: str) -> dict[StageSetting, float]:
        if stage not in self._prices:
            spec = self.pipeline.stage(stage)
            self._prices[stage] = {s: self.cost.stage(spec, s) for s in self._all[stage]}
        return self._prices[stage]

    @cached_property
    def _prices(self) -> dict[str, dict[StageSetting, float]]:
        return {}

    def price(self, stage: str, setting: StageSetting) -> float:
        """Predicted cost of one stage's setting per query."""
        return self._priced(stage)[setting]

    def sizes(self, stage: str) -> Mapping[str, float]:
        """How large a stage's candidate models are, by name: active parameters, or another measure that orders them."""
        return {model: self.cost.parameters[model] for model in self.pipeline.stage(stage).models}

    def total(self, allocation: Allocation) -> float:
        """Predicted cost of an allocation per query."""
        known = [self._priced(name).get(setting) for name, setting in allocation.settings if name in self._all]
        if len(known) == len(self._all) and None not in known:
            return sum(price for price in known if price is not None)
        return self.cost.allocation(allocation)

    def allocations(self, settings: Mapping[str, Sequence[StageSetting]] | None = None) -> Iterator[Allocation]:
        """Every feasible allocation, stage by stage, cheapest settings first.

        Args:
            settings: by stage, the settings to combine, cheapest first; all of `settings` by default.
        """
        offered = self.settings if settings is None else settings
        names = list(offered)
        cheapest_after = [0.0] * (len(names) + 1)
        for i in range(len(names) - 1, -1, -1):
            cheapest_after[i] = cheapest_after[i + 1] + min(self._priced(names[i])[s] for s in offered[names[i]])

        def extend(position: int, spent: float, chosen: tuple[tuple[str, StageSetting], ...]) -> Iterator[Allocation]:
            if position == len(names):
                yield Allocation(chosen)
                return
            name = names[position]
            for setting in offered[name]:
                price = self._priced(name)[setting]
                if spent + price + cheapest_after[position + 1] > self.limit * (1 + 1e-12):
                    break
                yield from extend(position + 1, spent + price, (*chosen, (name, setting)))

        yield from extend(0, 0.0, ())

    def size(self, most: int = MAX_ENUMERATED) -> int:
        """Number of feasible allocations, counted up to `most`."""
        count = 0
        for _ in self.allocations():
            count += 1
            if count >= most:
                break
        return count

    def sample(self, generator: random.Random, count: int) -> list[Allocation]:
        """Distinct feasible allocations, each stage drawn among what the budget still allows, stages in random order.

        Returns fewer than `count` where the space has no more, or where 50 tries in a row gave nothing new.
        """
        found: dict[Allocation, None] = {}
        misses = 0
        prices = {name: [self._priced(name)[s] for s in of] for name, of in self.settings.items()}
        floors = {name: of[0] for name, of in prices.items()}
        while len(found) < count and misses < 50:
            order = list(self.settings)
            generator.shuffle(order)
            left = self.limit - sum(floors.values())
            picked: dict[str, StageSetting] = {}
            for name in order:
                room = left + floors[name]
                # Settings are sorted by price; rounding must not leave a stage without its cheapest.
                affordable = max(1, bisect_right(prices[name], room))
                setting = self.settings[name][generator.randrange(affordable)]
                left = room - self._priced(name)[setting]
                picked[name] = setting
            allocation = Allocation.of({name: picked[name] for name in self.settings})
            misses = misses + 1 if allocation in found else 0
            found[allocation] = None
        return list(found)

    def faults(self, allocation: Allocation) -> list[str]:
        """Why an allocation may not run: names, ranges and the plan budget; empty where it may."""
        wanted = [stage.name for stage in self._stages]
        if sorted(allocation.stages) != sorted(wanted):
            return [f"stages must be exactly {', '.join(wanted)}; got {', '.join(allocation.stages) or 'none'}"]
        faults: list[str] = []
        for stage in self._stages:
            setting = allocation[stage.name]
            if setting not in self._priced(stage.name):
                faults += [f"{stage.name}: {fault}" for fault in setting_faults(stage, setting)]
        if not faults and self.total(allocation) > self.limit * (1 + 1e-12):
            faults.append(
                f"over budget: {self.total(allocation):.6g} {self.unit} per query, the plan may cost {self.limit:.6g}"
            )
        return faults

    def normal(self, allocation: Allocation) -> Allocation:
        """The same allocation with stages in pipeline order and one name for strategies that coincide at one sample."""
        return Allocation.of({stage.name: normal_setting(stage, allocation[stage.name]) for stage in self._stages})

    def most_draws(self, allocation: Allocation) -> int:
        """The most draws one query of an allocation can need."""
        return sum(
            STRATEGIES[setting.strategy].most_draws(StagePlan(self.pipeline.stage(name), setting))
            for name, setting in allocation.settings
        )
