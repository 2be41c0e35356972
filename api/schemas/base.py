"""What everything that crosses the border shares."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Public(BaseModel):
    """Base of everything that crosses the border."""

    model_config = ConfigDict(extra="forbid")


AllocationPublic = dict[str, dict[str, str | int | dict[str, int | float | str]]]
