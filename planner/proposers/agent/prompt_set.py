"""The agent's prompt templates: a named set with a version, and a hash that says exactly what was sent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

NAME = "allocations"
VERSION = 2
"""Raised with every change of a template; a test holds the hash of each version."""

FOLDER = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class PromptSet:
    """The templates of one folder."""

    name: str
    version: int
    sha256: str
    """Over names and contents of the templates."""

    environment: Environment = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        """Name, version and the start of the hash: ``allocations/2 1f3b0a9c22d4``."""
        return f"{self.name}/{self.version} {self.sha256[:12]}"

    def render(self, template: str, values: Mapping[str, object]) -> str:
        """One template, without space around it."""
        return self.environment.get_template(template).render(**values).strip()


@lru_cache(maxsize=1)
def prompt_set() -> PromptSet:
    """The set that ships with this version."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.glob("*.j2")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        autoescape=False,  # prompts are not HTML
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return PromptSet(NAME, VERSION, digest.hexdigest(), environment)
