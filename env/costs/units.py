"""The cost models by the name of their unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from env.costs._base import CostModel, CostOptions
from env.costs.agenttts import AgentTTSCost
from env.costs.eflops import EflopsCost
from env.costs.energy import EnergyCost
from env.costs.flops import FlopsCost
from env.costs.money import MoneyCost
from env.costs.runtime import AcceleratorSecondsCost, RuntimeCost
from env.costs.seconds import SecondsCost
from env.costs.tokens import TokenCost
from env.spec.study import CostUnit

_MODELS: Mapping[CostUnit, Callable[[CostOptions], CostModel]] = {
    "flops": FlopsCost,
    "agenttts": lambda options: AgentTTSCost(),
    "tokens": TokenCost,
    "eflops": EflopsCost,
    "runtime": RuntimeCost,
    "accelerator_seconds": AcceleratorSecondsCost,
    "dollars": MoneyCost,
    "joules": EnergyCost,
    "seconds": SecondsCost,
}

UNITS: tuple[CostUnit, ...] = tuple(_MODELS)
"""Every unit, from what needs least to what needs most."""


def cost_model(unit: CostUnit, options: CostOptions | None = None) -> CostModel:
    """The cost model of a budget's unit.

    Args:
        unit: as a plan budget names it.
        options: how the models are taken to be served.
    """
    return _MODELS[unit](options or CostOptions())
