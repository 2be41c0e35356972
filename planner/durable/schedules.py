"""Fires schedules: looks each second what is due, enters it as a run, and hands runs and alerts to the queues.

What is due is decided in one transaction with the schedule locked, and everything handed over has an id that is the
same whoever hands it over; so any number of workers may look, and one may die at any moment.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from dbos import DBOS, SetWorkflowID

from env.errors import ApportionError
from env.spec import StudySpec
from planner.archive import Archive, NewRun, RunRecord, ScheduleRecord, StatusConflict
from planner.archive.schedule_records import Advance
from planner.durable.scheduled_runs import (
    ALERTS,
    RUNS,
    deliver_alert,
    enter_alert,
    schedule_run,
    schedule_run_end,
    search_ended,
)
from planner.schedules.fingerprint import Fingerprints
from planner.schedules.policy import Look, admit, decide, next_firing

TICK_S = 1.0
WATCH_S = 30.0
"""Data and candidates of schedules that changes fire are looked at this often."""

LOST = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
"""What the engine says of workflows that nobody will go on with."""

log = logging.getLogger(__name__)


class Ticker:
    """A thread that fires this archive's schedules; every worker has one."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="apportion-schedules", daemon=True)
        self._since = datetime.now(UTC)
        self._firings: dict[str, tuple[int, datetime | None, datetime]] = {}
        """Next firings by schedule, with the version and the moment that they were computed from."""

        self._fingerprints = Fingerprints()
        self._specs: dict[str, tuple[int, StudySpec]] = {}
        self._watched = 0.0
        self._handed: set[str] = set()
        """Workflows that this process has enqueued."""

        self._troubles: dict[str, str] = {}

    def start(self) -> None:
        """Begin to look: what was due before now was missed."""
        self._retire_engine_schedules()
        self._since = datetime.now(UTC)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._tried("schedules", self.tick)
            self._stop.wait(TICK_S)

    def tick(self, now: datetime | None = None) -> None:
        """Look once.

        Args:
            now: the moment; the clock's by default.
        """
        look = Look(now or datetime.now(UTC), self._since)
        watch = time.monotonic() - self._watched >= WATCH_S
        self._watched = time.monotonic() if watch else self._watched
        for schedule in self._archive.schedules.list(specs=False):
            if self._may_be_due(schedule, look.now, watch):
                self._tried(f"schedule {schedule.name}", partial(self._fire, schedule, look))
        self._hand_over(watch)

    def _may_be_due(self, schedule: ScheduleRecord, now: datetime, watch: bool) -> bool:
        if schedule.paused:
            return False
        if schedule.plan.on_change:
            return watch
        held = self._firings.get(schedule.name)
        if held is None or held[0] != schedule.version or held[2] != schedule.considered_until:
            following = next_firing(schedule.plan, schedule.considered_until)
            held = self._firings[schedule.name] = (schedule.version, following, schedule.considered_until)
        return held[1] is not None and held[1] <= now

    def _fire(self, schedule: ScheduleRecord, look: Look) -> None:
        found = self._look_at(schedule) if schedule.plan.on_change else None

        def due(current: ScheduleRecord, unfinished: Any) -> Advance | None:
            # Changed meanwhile: what was found may be of another spec.
            return decide(current, unfinished, look, found if current.version == schedule.version else None)

        for run in self._archive.schedules.advance(schedule.name, due):
            log.info("schedule %s: run %d (%s) %s", schedule.name, run.number, run.cause, run.outcome or "entered")
            if run.status == "ended":
                enter_alert(self._archive, self._archive.schedules.get(schedule.name), run)

    def _look_at(self, schedule: ScheduleRecord) -> dict[str, Any]:
        held = self._specs.get(schedule.name)
        if held is None or held[0] != schedule.version:
            spec = StudySpec.model_validate(dict(self._archive.schedules.get(schedule.name).plan.spec))
            held = self._specs[schedule.name] = (schedule.version, spec)
        return self._fingerprints.of(held[1])

    def _hand_over(self, watch: bool) -> None:
        """See to it that runs go on: the first of each schedule, and every alert that is not delivered."""
        due: list[tuple[str, str, Callable[..., Any], str]] = []
        by_schedule: dict[str, list[RunRecord]] = {}
        for run in self._archive.schedule_runs.unfinished():
            by_schedule.setdefault(run.schedule_name, []).append(run)
        for runs in by_schedule.values():
            for run in runs:
                if run.cancel_requested:
                    self._cancel(run)
            first, begun = runs[0], f"schedule-run/{runs[0].id}"
            if first.status == "searching":
                begun += "/end"
                if search_ended(self._archive, first):
                    due.append((RUNS, begun, schedule_run_end, first.id))
            elif not (first.status == "waiting" and first.cancel_requested):
                due.append((RUNS, begun, schedule_run, first.id))
            if watch and begun in self._handed:
                self._end_lost(first, begun)
        pending = self._archive.alerts.pending()
        due += [(ALERTS, f"schedule-alert/{run_id}", deliver_alert, run_id) for run_id in pending]
        for queue, workflow_id, workflow, argument in due:
            if workflow_id not in self._handed:
                with SetWorkflowID(workflow_id):
                    DBOS.enqueue_workflow(queue, workflow, argument)
        self._handed = {workflow_id for _, workflow_id, _, _ in due}

    def _end_lost(self, run: RunRecord, workflow_id: str) -> None:
        """End a run whose workflow is no more, for instance as the disk was full when it was to say why."""
        state = DBOS.get_workflow_status(workflow_id)
        if state is not None and state.status in LOST:
            reason = f"its workflow ended as {state.status} without a word; the worker's log may say why"
            ended = self._archive.schedule_runs.end(run.id, "failed", reason)
            enter_alert(self._archive, self._archive.schedules.get(run.schedule_name), ended)

    def _cancel(self, run: RunRecord) -> None:
        if run.status == "waiting":
            ended = self._archive.schedule_runs.end(run.id, "cancelled", "cancelled before it began")
            enter_alert(self._archive, self._archive.schedules.get(run.schedule_name), ended)
        elif run.new_study is not None:
            cancel_study(self._archive, run.new_study)

    def _tried(self, what: str, work: Callable[[], object]) -> None:
        """Do it; a trouble is logged once until it is another one, and the next look tries again."""
        try:
            work()
            self._troubles.pop(what, None)
        except ApportionError as error:
            if self._troubles.get(what) != str(error):
                log.warning("%s: %s", what, error)
            self._troubles[what] = str(error)
        except Exception:
            log.exception("%s: a fault of the program", what)

    def _retire_engine_schedules(self) -> None:
        """Take back what an earlier version entered into the engine's own scheduler: the archive's rows fire now."""
        for schedule in DBOS.list_schedules():
            if schedule["workflow_name"] == "scheduled_study":
                DBOS.delete_schedule(schedule["schedule_name"])


def run_now(archive: Archive, name: str, now: datetime | None = None) -> RunRecord:
    """Enter a run of a schedule at once, paused or not; a worker takes it up.

    Raises:
        NotFound: there is no such schedule.
        StatusConflict: a run is under way, and the schedule skips what overlaps.
    """
    schedule = archive.schedules.get(name)
    moment = now or datetime.now(UTC)
    refused: list[str] = []

    def enter(current: ScheduleRecord, unfinished: Any) -> Advance | None:
        run, cancel = admit(current.plan, NewRun(moment, "manual"), unfinished)
        if run.outcome is not None:
            refused.append(run.reason)
            return None
        return Advance(current.considered_until, [run], cancel)

    entered = archive.schedules.advance(schedule.name, enter)
    if not entered:
        why = refused[0] if refused else "it was deleted meanwhile"
        raise StatusConflict(f"schedule {name!r} was not run: {why}")
    return entered[0]


def cancel_study(archive: Archive, study_id: str) -> None:
    """Ask a study to stop; a queued one ends at once."""
    archive.studies.request_cancel(study_id)
    if archive.studies.get(study_id).status == "queued":
        archive.studies.set_status(study_id, "cancelled")
