"""Money: what a provider charges for the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from env.costs._base import CostDataError, CostOptions, Lack, ModelProfile, StageTokens, refuse_lacks
from env.spec.architecture import Price
from env.spec.faults import faults_of

PER_TOKENS = 1e6

PRICE_LACK = Lack(
    "model",
    "price",
    "state {input, output, cached_input} in US dollars for a million tokens, or name a file of them as "
    "budget.plan.prices",
)


class MoneyCost:
    """``USD = (Np input + S Nd output) / 10^6``.

    Where the prompt is not shared, each sample is a request of its own: the first pays the input price, those after it
    the cached one, where the provider has one.
    """

    unit = "USD"

    def __init__(self, options: CostOptions) -> None:
        self._shared = options.prompt_shared

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """See `CostModel.lacks`."""
        return [] if model.price is not None else [PRICE_LACK]

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`."""
        price = model.price
        if price is None:
            refuse_lacks(self.unit, model, self.lacks(model))
            raise CostDataError(f"{model.name} has no price")
        cached = price.input if price.cached_input is None else price.cached_input
        again = tokens.prefills(self._shared) - tokens.prompts
        read = tokens.prompt * (tokens.prompts * price.input + again * cached)
        return (read + tokens.samples * tokens.prompts * tokens.output * price.output) / PER_TOKENS


def read_prices(path: Path) -> Mapping[str, Price]:
    """A YAML file of prices: ``model: {input: ..., output: ..., cached_input: ...}``.

    Raises:
        CostDataError: it cannot be read or is no such table; the message says where.
    """
    try:
        return _read_prices(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise CostDataError(f"cannot read the prices in {path}: {error}") from error


@lru_cache(maxsize=16)
def _read_prices(path: Path, changed: int) -> Mapping[str, Price]:
    """Cached by time of change: every search space and environment of a study asks for it."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(dict[str, Price]).validate_python(raw)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise CostDataError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(map(str, faults_of(error)))
        raise CostDataError(f"{path} is no table of prices: {wrong}") from error
