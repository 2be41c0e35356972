"""The bundled demo study: three stages on the embedded models."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from env.spec import StudySpec
from env.spec.load import parse_spec


def demo_yaml() -> str:
    """The demo study as YAML."""
    return files("api.demo").joinpath("ledger.yaml").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def demo_spec() -> StudySpec:
    """The demo study, checked."""
    return parse_spec(demo_yaml())
