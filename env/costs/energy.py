"""Energy: rated power over idealized accelerator-seconds."""

from __future__ import annotations

from env.costs._base import CostDataError, CostOptions, Lack, ModelProfile, StageTokens
from env.costs.accelerators import accelerator
from env.costs.runtime import AcceleratorSecondsCost


class EnergyCost:
    """``J = accelerator-seconds x power x power_fraction x PUE``.

    The default takes the rated power to be drawn throughout (power_fraction 1) and counts the accelerator alone (PUE
    1). Decoding is bound by memory and draws less, so this is an upper bound on an idealized time.
    """

    unit = "J"

    def __init__(self, options: CostOptions) -> None:
        self._options = options
        self._busy = AcceleratorSecondsCost(options)

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """See `CostModel.lacks`."""
        lacks = self._busy.lacks(model)
        if not lacks and accelerator(str(self._options.accelerator)).power_w is None:
            message = f"no rated power of {self._options.accelerator} is published; take another accelerator or unit"
            return [Lack("plan", "accelerator", message)]
        return lacks

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`."""
        busy = self._busy.stage_cost(model, tokens)
        power = accelerator(str(self._options.accelerator)).power_w
        if power is None:
            raise CostDataError(f"no rated power of {self._options.accelerator} is published")
        return busy * power * self._options.power_fraction * self._options.pue
