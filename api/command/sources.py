"""Where the commands' answers come from: the archive of this machine, or a service under a URL. Both say the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, get_args

from api.client import Client, Missing
from api.command.session import noted, opened_archive, settings_for
from api.routes.studies import detail_of
from api.schemas import GuidelinePublic, StudyDetail, StudyPublic, TrialPublic
from planner.archive import Archive, NotFound
from planner.archive.statuses import TERMINAL
from planner.plans import PlanDocument

PlanKind = Literal["chosen", "best"]
PLAN_KINDS: tuple[PlanKind, ...] = get_args(PlanKind)


class Source(Protocol):
    """What the reading commands ask."""

    def studies(self, limit: int) -> list[StudyPublic]:
        """Studies, newest first."""
        ...

    def study(self, name: str) -> StudyDetail:
        """The study a person means."""
        ...

    def guidelines(self, study_id: str) -> list[GuidelinePublic]:
        """What its rounds taught."""
        ...

    def trials(self, study_id: str) -> list[TrialPublic]:
        """Its trials by number."""
        ...

    def plan(self, study_id: str, kind: PlanKind) -> PlanDocument | None:
        """Its plan; None while it has none."""
        ...

    def cancel(self, study_id: str) -> StudyPublic:
        """Ask it to stop."""
        ...


class ArchiveSource:
    """The archive of this machine."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def studies(self, limit: int) -> list[StudyPublic]:
        """See `Source`."""
        return [StudyPublic.of(record) for record in self._archive.studies.page(limit)]

    def study(self, name: str) -> StudyDetail:
        """See `Source`."""
        return detail_of(self._archive, self._archive.studies.find(name))

    def guidelines(self, study_id: str) -> list[GuidelinePublic]:
        """See `Source`."""
        return [GuidelinePublic.of(record) for record in self._archive.guidelines.list(study_id)]

    def trials(self, study_id: str) -> list[TrialPublic]:
        """See `Source`."""
        return [TrialPublic.of(record) for record in self._archive.trials.list(study_id)]

    def plan(self, study_id: str, kind: PlanKind) -> PlanDocument | None:
        """See `Source`."""
        try:
            return PlanDocument.model_validate(dict(self._archive.plans.get(study_id, kind).document))
        except NotFound:
            return None

    def cancel(self, study_id: str) -> StudyPublic:
        """See `Source`."""
        study = self._archive.studies.get(study_id)
        if study.status not in TERMINAL:
            with noted(self._archive, "cancel", study.id):
                self._archive.studies.request_cancel(study.id)
                if study.status == "queued":
                    self._archive.studies.set_status(study.id, "cancelled")
        return StudyPublic.of(self._archive.studies.get(study.id))


class ServiceSource:
    """A service under a URL."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def studies(self, limit: int) -> list[StudyPublic]:
        """See `Source`."""
        return list(itertools.islice(self._client.studies(), limit))

    def study(self, name: str) -> StudyDetail:
        """See `Source`."""
        return self._client.study(name)

    def guidelines(self, study_id: str) -> list[GuidelinePublic]:
        """See `Source`."""
        return list(self._client.guidelines(study_id))

    def trials(self, study_id: str) -> list[TrialPublic]:
        """See `Source`."""
        return list(self._client.trials(study_id))

    def plan(self, study_id: str, kind: PlanKind) -> PlanDocument | None:
        """See `Source`."""
        try:
            return self._client.plan(study_id, kind)
        except Missing:
            return None

    def cancel(self, study_id: str) -> StudyPublic:
        """See `Source`."""
        return self._client.cancel(study_id)


@contextmanager
def source_at(url: str | None, home: Path | None) -> Iterator[Source]:
    """The service under a URL where one is given, else the archive in the home folder."""
    if url:
        with Client(url) as client:
            yield ServiceSource(client)
    else:
        with opened_archive(settings_for(home)) as archive:
            yield ArchiveSource(archive)
