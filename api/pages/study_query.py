"""What the address of a study's page says of what is shown: the order of its trials, their page, one stage."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import Query

from api.paging import MAX_PAGE
from planner.archive.browsing import TrialSort

SHOWN_TRIALS = 50
MOST_PAGES = 1_000_000 // MAX_PAGE


@dataclass(frozen=True)
class StudyQuery:
    """The parameters of the address."""

    sort: Annotated[TrialSort, Query()] = "no"
    order: Annotated[Literal["up", "down"], Query()] = "up"
    page: Annotated[int, Query(ge=1, le=MOST_PAGES)] = 1
    status: Annotated[Literal["", "done", "failed", "cut"], Query()] = ""
    stage: Annotated[str, Query(max_length=64)] = ""

    def href(self, **changes: str | int) -> str:
        """The same address with some parameters changed; what is as by default is left out."""
        held = {field.name: changes.get(field.name, getattr(self, field.name)) for field in fields(self)}
        told = {name: value for name, value in held.items() if value != getattr(StudyQuery, name)}
        return "?" + urlencode(told)

    def sorted_by(self, sort: TrialSort) -> str:
        """The address that a column's head leads to: its order, turned round where it is in it already."""
        first = "up" if sort in ("no", "cost") else "down"
        turned = {"up": "down", "down": "up"}[self.order] if sort == self.sort else first
        return self.href(sort=sort, order=turned, page=1) + "#live-trials"
