"""Published peak rates of accelerators, from a data file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml
from pydantic import Field, TypeAdapter

from env.costs._base import CostDataError, CostOptions, Lack
from env.spec.strict import Strict
from env.spec.study import Precision


class Accelerator(Strict):
    """One device; rates are the vendor's peaks without structured sparsity."""

    title: str
    memory_gb: float = Field(gt=0, description="10^9 bytes.")
    bandwidth_gbps: float = Field(gt=0, description="10^9 bytes per second.")
    power_w: float | None = Field(gt=0, description="Rated power of the device; null where none is published.")
    peak_tflops: dict[Precision, float] = Field(min_length=1, description="10^12 operations per second.")
    source: str = Field(min_length=1)
    assumption: str = ""

    @property
    def memory_bytes(self) -> float:
        """Memory in bytes."""
        return self.memory_gb * 1e9

    @property
    def bytes_per_second(self) -> float:
        """Memory bandwidth."""
        return self.bandwidth_gbps * 1e9


@cache
def accelerators() -> Mapping[str, Accelerator]:
    """Every accelerator of the table by name."""
    text = files("env.costs").joinpath("accelerators.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Accelerator]).validate_python(yaml.safe_load(text))


def accelerator(name: str) -> Accelerator:
    """One accelerator.

    Raises:
        CostDataError: the table has none of that name.
    """
    try:
        return accelerators()[name]
    except KeyError:
        raise CostDataError(f"no accelerator {name!r}; there are {', '.join(accelerators())}") from None


def precision_of(options: CostOptions) -> Precision:
    """The precision of the arithmetic: stated, else bf16 where the accelerator has it, else fp32."""
    if options.precision is not None:
        return options.precision
    known = options.accelerator is not None and options.accelerator in accelerators()
    if known and "bf16" not in accelerators()[str(options.accelerator)].peak_tflops:
        return "fp32"
    return "bf16"


def peak_rate(options: CostOptions) -> float:
    """FLOPs per second of one accelerator at the precision of the arithmetic.

    Raises:
        CostDataError: the accelerator is not known, or has no rate at that precision.
    """
    lacks = lacks_of_accelerator(options)
    if lacks:
        raise CostDataError("; ".join(lack.message for lack in lacks))
    return accelerators()[str(options.accelerator)].peak_tflops[precision_of(options)] * 1e12


def lacks_of_accelerator(options: CostOptions) -> list[Lack]:
    """What is wrong with the accelerator and the precision; empty where `peak_rate` can be asked."""
    if options.accelerator is None:
        message = f"name the accelerator the models run on; there are {', '.join(accelerators())}"
        return [Lack("plan", "accelerator", message)]
    if options.accelerator not in accelerators():
        message = f"no accelerator {options.accelerator!r}; there are {', '.join(accelerators())}"
        return [Lack("plan", "accelerator", message)]
    rates = accelerators()[options.accelerator].peak_tflops
    if precision_of(options) in rates:
        return []
    message = f"{options.accelerator} has no published rate in {precision_of(options)}; it has {', '.join(rates)}"
    return [Lack("plan", "precision", message)]
