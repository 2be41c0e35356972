"""Bundled studies: the demo of three stages on the embedded models, a quick look, and one on your own servers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from env.spec import StudySpec
from env.spec.load import parse_spec

EXAMPLES: Mapping[str, str] = {
    "ledger": "The demo: three stages on bundled models, some minutes",
    "quick": "A quick look: two stages on bundled models, some seconds",
    "capitals": "Your own servers: two stages, examples in the study itself",
}
"""What can be begun from, with what it is."""


def demo_yaml() -> str:
    """The demo study as YAML."""
    return example_yaml("ledger")


def example_yaml(name: str) -> str:
    """A bundled study as YAML; KeyError where there is none of this name."""
    if name not in EXAMPLES:
        raise KeyError(name)
    return files("api.demo").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def demo_spec() -> StudySpec:
    """The demo study, checked."""
    return parse_spec(demo_yaml())
