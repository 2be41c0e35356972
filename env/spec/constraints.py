"""What a plan must keep to besides its budget: latency, memory, and how good a stage must be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from env.spec.stage import StageName
from env.spec.strict import Strict


class LatencyLimit(Strict):
    """How long a query may take."""

    seconds: float = Field(gt=0)
    basis: Literal["predicted", "measured"] = Field(
        "predicted",
        description="predicted: idealized runtime on the accelerator, times budget.plan.calibration where stated, "
        "known before a trial runs. measured: mean over a trial's examples of the time their draws took here.",
    )
    accelerator: str | None = Field(
        None, description="For predicted: by name, for instance h100-sxm; budget.plan.accelerator where not given."
    )


class MemoryLimit(Strict):
    """How much memory all models of the plan may take together: weights and KV cache."""

    bytes: float = Field(gt=0)
    queries: int = Field(1, ge=1, le=65536, description="Queries in flight at once, each with its own KV cache.")


class Constraints(Strict):
    """Limits besides the budget. What can be predicted bounds the search; the rest decides what may become the plan."""

    latency: LatencyLimit | None = None
    memory: MemoryLimit | None = None
    stage_quality: dict[StageName, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="Least mean score of a stage's own answers on the search split, by stages that have a metric.",
    )
