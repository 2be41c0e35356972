"""Keeps plans open between queries, so that engines load once; closes those that nobody has asked for a while."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator

from api.completions.admission import Admission
from api.completions.errors import CompletionError
from api.settings import Settings
from planner.archive import Archive, PlanRecord
from planner.serving import OpenedPlan, open_plan


class _Place:
    """One open study with the number of queries that use it."""

    def __init__(self, opening: asyncio.Task[OpenedPlan]) -> None:
        self.opening = opening
        self.used = 0

    @property
    def failed(self) -> bool:
        """Whether it could not be opened."""
        return self.opening.done() and (self.opening.cancelled() or self.opening.exception() is not None)


class Desk:
    """Serves the plans of one archive; used from one event loop."""

    def __init__(self, archive: Archive, settings: Settings) -> None:
        """Nothing is opened yet."""
        self._archive = archive
        self._most_open = settings.plans_open
        self.keep_alive_s = settings.plan_keep_alive_s
        self.admission = Admission(settings.plan_queries, settings.plan_queue, settings.plan_queue_wait_s)
        self._open: OrderedDict[str, _Place] = OrderedDict()
        self._closed = False

    @property
    def open_studies(self) -> tuple[str, ...]:
        """Studies whose models are open, the last used last."""
        return tuple(self._open)

    @contextlib.asynccontextmanager
    async def opened(self, record: PlanRecord) -> AsyncIterator[OpenedPlan]:
        """The plan's pipeline, open until the block ends and, most often, long after.

        Raises:
            ApportionError: it cannot be opened.
        """
        if self._closed:
            raise CompletionError(503, "the service is shutting down", code="shutting_down", retry_s=5)
        place = self._open.get(record.study_id)
        if place is None:
            opening = asyncio.create_task(asyncio.to_thread(open_plan, self._archive, record))
            place = self._open[record.study_id] = _Place(opening)
        self._open.move_to_end(record.study_id)
        place.used += 1
        try:
            # Shielded: the others that wait for it are not to fail because one of them left.
            plan = await asyncio.shield(place.opening)
            yield plan
        finally:
            place.used -= 1
            await self._close_idle()

    async def _close_idle(self) -> None:
        """Forget what could not be opened, so that the next query tries again, and close the longest unused."""
        for study in [study for study, place in self._open.items() if place.failed]:
            del self._open[study]
        idle = [study for study, place in self._open.items() if not place.used and place.opening.done()]
        for study in idle[: max(0, len(self._open) - self._most_open)]:
            await self._open.pop(study).opening.result().close()

    async def close(self) -> None:
        """Close everything; queries under way fail."""
        self._closed = True
        while self._open:
            _, place = self._open.popitem()
            with contextlib.suppress(Exception):
                await (await place.opening).close()
