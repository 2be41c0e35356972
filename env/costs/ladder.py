"""One allocation in every unit whose data is there, from the tokens it used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from env.allocation import Allocation
from env.calls import Call
from env.costs._base import CostOptions
from env.costs.plan_cost import PlanCost
from env.costs.units import UNITS
from env.spec.pipeline import PipelineSpec
from env.spec.study import CostUnit

SECONDS: CostUnit = "seconds"


class Ladder:
    """Prices allocations of one pipeline in every unit it has the data for."""

    def __init__(self, pipeline: PipelineSpec, options: CostOptions | None = None) -> None:
        """Find out which units can be priced.

        Args:
            pipeline: whose allocations are priced.
            options: how the models are taken to be served.

        Raises:
            ApportionError: a model's size or price cannot be read.
        """
        self._pipeline = pipeline
        costs = {unit: PlanCost(pipeline, unit, options) for unit in UNITS}
        self._costs = {unit: cost for unit, cost in costs.items() if not cost.faults()}

    @property
    def units(self) -> Mapping[CostUnit, str]:
        """The units that can be priced, and how people write them."""
        return {unit: cost.unit for unit, cost in self._costs.items()}

    def of(self, allocation: Allocation, calls: Mapping[str, Sequence[Call]] | None = None) -> dict[CostUnit, float]:
        """Cost per query by unit.

        Args:
            allocation: what runs.
            calls: what each stage asked for, by its name; what is planned where None.
        """
        return {unit: self._total(cost, allocation, calls) for unit, cost in self._costs.items()}

    def mean(
        self, allocation: Allocation, queries: Sequence[Mapping[str, Sequence[Call]]], seconds: float | None = None
    ) -> dict[CostUnit, float]:
        """Mean cost per query by unit over queries that ran.

        Units that grow faster than the tokens (those with attention) are averaged over queries, not priced at the mean
        query.

        Args:
            allocation: what ran.
            queries: for each, what every stage asked for.
            seconds: measured seconds a query; they stand in the unit seconds in place of a prediction.
        """
        if not queries:
            return {}
        priced = [self.of(allocation, query) for query in queries]
        means = {unit: math.fsum(one[unit] for one in priced) / len(priced) for unit in self._costs}
        if seconds is not None:
            means[SECONDS] = seconds
        else:
            means.pop(SECONDS, None)
        return means

    @staticmethod
    def _total(cost: PlanCost, allocation: Allocation, calls: Mapping[str, Sequence[Call]] | None) -> float:
        if calls is None:
            return cost.allocation(allocation)
        return math.fsum(cost.of(calls[name]) for name in allocation.stages)


def ladder(
    pipeline: PipelineSpec,
    allocation: Allocation,
    calls: Mapping[str, Sequence[Call]],
    options: CostOptions | None = None,
) -> dict[CostUnit, float]:
    """Cost per query of an allocation in every unit whose data is there.

    Args:
        pipeline: the stages and their models.
        allocation: what ran.
        calls: what each stage asked for, by its name.
        options: how the models are taken to be served; without an accelerator there are no seconds and no joules.

    Raises:
        ApportionError: a model's size or price cannot be read.
        KeyError: a stage of the allocation has no calls.
    """
    return Ladder(pipeline, options).of(allocation, calls)
