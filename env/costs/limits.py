"""Which constraints besides the budget an allocation breaks, as far as that can be told before it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from env.allocation import Allocation, StageSetting
from env.costs._base import CostOptions
from env.costs.architecture import kv_bytes_per_token, weight_bytes
from env.costs.plan_cost import PlanCost
from env.spec.constraints import Constraints
from env.spec.faults import Fault
from env.spec.pipeline import JudgeModel, PipelineSpec
from env.spec.study import CostUnit, PlanBudget
from env.strategies import STRATEGIES, StagePlan
from env.strategies.settings import stage_settings

LARGEST_SEARCH = 200_000
"""Allocations looked at for one that keeps to everything, cheapest settings first."""


class PlanLimits:
    """Predicted latency and memory of a pipeline's allocations, and their limits."""

    def __init__(self, pipeline: PipelineSpec, plan: PlanBudget, limits: Constraints) -> None:
        """Open the cost model that latency is predicted with.

        Args:
            pipeline: whose allocations are judged.
            plan: how the models are served.
            limits: the constraints.

        Raises:
            ApportionError: a model's size cannot be read.
        """
        self._pipeline = pipeline
        self._latency = limits.latency if limits.latency and limits.latency.basis == "predicted" else None
        self._memory = limits.memory
        self._seconds: PlanCost | None = None
        self._profiles = PlanCost(pipeline, "flops").profiles if self._memory else {}
        if self._latency is not None:
            options = CostOptions.of(plan)
            if self._latency.accelerator is not None:
                options = replace(options, accelerator=self._latency.accelerator)
            unit: CostUnit = "runtime" if options.calibration is None else "seconds"
            # A latency is what one query waits for, whatever it shares the machine with.
            self._seconds = PlanCost(pipeline, unit, replace(options, batch_size=1))

    @property
    def any(self) -> bool:
        """Whether there is anything to keep to before a run."""
        return self._seconds is not None or self._memory is not None

    def latency(self, allocation: Allocation) -> float | None:
        """Predicted seconds per query, stages and samples one after another; None where there is no limit."""
        return None if self._seconds is None else self._seconds.allocation(allocation)

    def memory(self, allocation: Allocation) -> float | None:
        """Bytes of the weights of every model that is asked, and of the largest KV cache a stage needs of each.

        None where there is no limit. A query at a stage keeps its prompt and all its samples in the cache; a model
        that serves several stages serves them one after another.
        """
        if self._memory is None:
            return None
        tokens: dict[str, float] = {}
        for name, setting in allocation.settings:
            here: dict[str, float] = {}
            for call in STRATEGIES[setting.strategy].calls(StagePlan(self._pipeline.stage(name), setting)):
                served = self._served(call.model)
                here[served] = here.get(served, 0.0) + call.prompts * (call.prompt + call.output * call.samples)
            for served, wanted in here.items():
                tokens[served] = max(wanted, tokens.get(served, 0.0))
        return sum(self._bytes(model, wanted) for model, wanted in tokens.items())

    def _served(self, model: str) -> str:
        """The model that does the work: of a judge the one it asks."""
        spec = self._pipeline.models[model]
        return spec.model if isinstance(spec, JudgeModel) else model

    def _bytes(self, model: str, tokens: float) -> float:
        profile = self._profiles[model]
        assert profile.architecture is not None
        queries = 1 if self._memory is None else self._memory.queries
        cache = tokens * queries * kv_bytes_per_token(profile.architecture, profile.quantisation)
        return weight_bytes(profile.architecture, profile.quantisation) + cache

    def broken(self, allocation: Allocation) -> list[str]:
        """What an allocation breaks, with the numbers; empty where it keeps to everything."""
        found: list[str] = []
        seconds, held = self.latency(allocation), self.memory(allocation)
        if self._latency is not None and seconds is not None and seconds > self._latency.seconds * (1 + 1e-12):
            found.append(f"too slow: {seconds:.4g} s predicted per query, {self._latency.seconds:.4g} s allowed")
        if self._memory is not None and held is not None and held > self._memory.bytes * (1 + 1e-12):
            found.append(
                f"too large: its models need {held / 1e9:.4g} GB together, {self._memory.bytes / 1e9:.4g} GB allowed"
            )
        return found

    def faults(self) -> list[Fault]:
        """What the constraints need and the spec does not say, each with the field to add it to."""
        found: list[Fault] = []
        if self._seconds is not None:
            for fault in self._seconds.faults():
                here = fault.path == "budget.plan.accelerator"
                path = "constraints.latency.accelerator" if here else fault.path
                found.append(Fault(path, fault.message))
        if self._memory is not None:
            found += [
                Fault(
                    f"pipeline.models.{name}.architecture",
                    "constraints.memory needs it: name one of the catalogue, or state the numbers",
                )
                for name, model in self._pipeline.models.items()
                if not isinstance(model, JudgeModel) and self._profiles[name].architecture is None
            ]
        return found

    def binding(self, cost: PlanCost, limit: float) -> list[Fault]:
        """Which constraint leaves nothing within the plan budget; empty where something is left.

        Looks through allocations cheapest first; where the first `LARGEST_SEARCH` decide nothing, nothing is said.

        Args:
            cost: of the plan budget.
            limit: of the plan budget.
        """
        if not self.any:
            return []
        fastest = smallest = None
        least_seconds = least_bytes = math.inf
        for looked_at, allocation in enumerate(self._allocations(cost)):
            if looked_at == LARGEST_SEARCH:
                return []
            if cost.allocation(allocation) > limit:
                continue
            if not self.broken(allocation):
                return []
            seconds, held = self.latency(allocation), self.memory(allocation)
            if seconds is not None and seconds < least_seconds:
                least_seconds, fastest = seconds, allocation
            if held is not None and held < least_bytes:
                least_bytes, smallest = held, allocation
        found: list[Fault] = []
        if self._latency is not None and least_seconds > self._latency.seconds:
            message = f"the fastest allocation within the plan budget takes {least_seconds:.4g} s ({fastest})"
            found.append(Fault("constraints.latency.seconds", f"{message}; allow that or more"))
        if self._memory is not None and least_bytes > self._memory.bytes:
            message = f"the smallest allocation within the plan budget needs {least_bytes:.6g} bytes ({smallest})"
            found.append(Fault("constraints.memory.bytes", f"{message}; allow that or more"))
        if not found:
            message = "each can be kept to alone, but no allocation within the plan budget keeps to all of them"
            found.append(Fault("constraints", message))
        return found

    def _settings(self, cost: PlanCost) -> list[list[tuple[str, StageSetting]]]:
        return [
            [
                (stage.name, setting)
                for setting in sorted(stage_settings(stage), key=lambda s, stage=stage: (cost.stage(stage, s), s))  # type: ignore[misc]
            ]
            for stage in self._pipeline.stages
        ]

    def _allocations(self, cost: PlanCost) -> Iterator[Allocation]:
        for chosen in product(*self._settings(cost)):
            yield Allocation(tuple(chosen))
