"""Architectures of published models by name, from a data file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml
from pydantic import Field, TypeAdapter

from env.costs._base import CostDataError
from env.spec.architecture import Architecture, Quantisation
from env.spec.strict import Strict


class Published(Strict):
    """What the model's makers say of its size."""

    total: float = Field(gt=0)
    active: float | None = Field(None, gt=0)
    active_without_embedding: bool = Field(False, description="Their active figure leaves the input embedding out.")
    source: str = Field(min_length=1)


class CatalogueEntry(Strict):
    """One published model."""

    architecture: Architecture
    quantisation: Quantisation = Quantisation()
    published: Published


@cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """Every entry by name."""
    text = files("env.costs").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, CatalogueEntry]).validate_python(yaml.safe_load(text))


def catalogued(name: str) -> CatalogueEntry:
    """One entry.

    Raises:
        CostDataError: the catalogue has none of that name; the message lists close ones.
    """
    entry = catalogue().get(name)
    if entry is None:
        raise CostDataError(f"the catalogue has no {name!r}; {_near(name)}")
    return entry


def _near(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name.lower().rpartition("/")[2], catalogue(), n=5, cutoff=0.5)
    return f"near it are {', '.join(close)}" if close else f"there are {', '.join(catalogue())}"
