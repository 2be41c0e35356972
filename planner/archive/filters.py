"""Which studies a list wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import col, or_

from planner.archive.records import StudyStatus
from planner.archive.tables import StudyRow


@dataclass(frozen=True)
class StudyFilter:
    """What a study must be; every field that is given narrows the choice."""

    statuses: Sequence[StudyStatus] = ()
    """One of these."""

    name: str = ""
    """Part of the name, whatever the case."""

    text: str = ""
    """Words, each of them part of the name, the notes or the id, whatever the case."""

    schedule: str | None = None
    """The schedule that queued it."""

    proposer: str | None = None
    """The proposer that runs, as resolved."""

    pipeline: str | None = None
    """Digest of its pipeline."""

    created_from: datetime | None = None
    created_before: datetime | None = None
    """Exclusive."""

    def conditions(self) -> list[Any]:
        """As SQL."""
        found: list[Any] = []
        if self.statuses:
            found.append(col(StudyRow.status).in_(list(self.statuses)))
        if self.name:
            found.append(col(StudyRow.name).icontains(self.name, autoescape=True))
        for word in self.text.split():
            places = (StudyRow.name, StudyRow.notes, StudyRow.id)
            found.append(or_(*(col(place).icontains(word, autoescape=True) for place in places)))
        if self.schedule is not None:
            found.append(StudyRow.schedule_name == self.schedule)
        if self.proposer is not None:
            found.append(StudyRow.proposer == self.proposer)
        if self.pipeline is not None:
            found.append(StudyRow.pipeline_digest == self.pipeline)
        if self.created_from is not None:
            found.append(col(StudyRow.created_at) >= self.created_from)
        if self.created_before is not None:
            found.append(col(StudyRow.created_at) < self.created_before)
        return found
