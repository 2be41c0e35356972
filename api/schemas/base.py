"""What everything that crosses the border shares."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")


class Public(BaseModel):
    """Base of everything that crosses the border."""

    model_config = ConfigDict(extra="forbid")


class Page(Public, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next: str | None = Field(
        description="Give this as `cursor` for the page after; null on the last one. The header `Link` has its URL."
    )


AllocationPublic = dict[str, dict[str, str | int | dict[str, int | float | str]]]
