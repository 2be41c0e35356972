"""The scored example: what a pipeline is given and what it should answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


@dataclass(frozen=True)
class Example:
    """One row of a data set."""

    id: str
    """Unique within its data set; the key that pairs evidence across trials."""

    fields: Mapping[str, JsonValue]
    """What the stage prompts may name, for instance ``question``."""

    answers: tuple[str, ...]
    """Accepted final answers; a prediction is scored against the closest one."""

    stage_gold: Mapping[str, JsonValue] = field(default_factory=dict)
    """Optional gold value by stage name, in the form the stage's parser returns."""
