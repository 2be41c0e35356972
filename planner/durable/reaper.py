"""Keeps the studies of an archive running: beats for this worker, and takes over what dead workers left."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from dbos import DBOS

from env.errors import ApportionError
from env.fleet.processes import process_exists
from planner.archive import WorkerRecord
from planner.archive.sessions import utc_now
from planner.durable.jobs import STUDY, Jobs, run_of
from planner.durable.scheduled_runs import ALERTS, RUNS
from planner.durable.worker import Worker

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0

SWEEP_SECONDS = 5.0
"""How often studies are looked for that should run and are in no queue."""

OTHERS = {"schedule_run": RUNS, "schedule_run_end": RUNS, "deliver_alert": ALERTS}
"""Workflows that are taken over as they are, by name, and the queues they belong in."""


class Silence:
    """How long each worker has not been heard of, by this process's own clock.

    Clocks of other machines play no part: a beat is news because it differs from the last one. Time in which this
    process did not look itself, as it was frozen or the database was away, counts as one beat at most: then all others
    get the chance to be heard first.
    """

    def __init__(self) -> None:
        self._looked: float | None = None
        self._beats: dict[str, datetime] = {}
        self._silent: dict[str, float] = {}

    def look(self, workers: Iterable[WorkerRecord], now: float) -> None:
        """Take note of the workers' last beats at a moment of the monotonic clock, in seconds."""
        passed = 0.0 if self._looked is None else min(now - self._looked, 2 * BEAT_SECONDS)
        self._looked = now
        beats = {worker.executor_id: worker.last_beat for worker in workers}
        self._silent = {
            name: self._silent.get(name, 0.0) + passed if self._beats.get(name) == beat else 0.0
            for name, beat in beats.items()
        }
        self._beats = beats

    def of(self, executor_id: str) -> float:
        """Seconds without a beat."""
        return self._silent.get(executor_id, 0.0)


def live_executors(workers: Iterable[WorkerRecord], silence: Silence, host: str, dead_s: float) -> set[str]:
    """Executor ids of the workers that live: heard of of late, and on this host a process that exists."""
    return {
        w.executor_id
        for w in workers
        if silence.of(w.executor_id) < dead_s and (w.host != host or process_exists(w.pid))
    }


class Reaper:
    """A thread that beats for this worker and takes over for dead ones.

    Args:
        worker: this process.
        jobs: the queues.
        dead_s: silence after which a worker counts as dead, in seconds.
    """

    def __init__(self, worker: Worker, jobs: Jobs, dead_s: float) -> None:
        self._worker = worker
        self._archive = worker.archive
        self._jobs = jobs
        self._dead_s = dead_s
        self._host = socket.gethostname()
        self._silence = Silence()
        self._stranded: set[str] = set()
        self._swept = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="apportion-reaper", daemon=True)

    def beat(self) -> None:
        """Say that this worker lives; before it takes its first study, so that no other takes it for dead.

        Raises:
            ArchiveError: the database failed.
        """
        self._archive.workers.beat(self._worker.executor_id, self._host, os.getpid())

    def start(self) -> None:
        """Look once before returning, then keep on in the background."""
        self.reap()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the worker stays entered."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self.beat()
                self.reap()
                if time.monotonic() - self._swept >= SWEEP_SECONDS:
                    self.sweep()
            except ApportionError as error:
                # The database may be back at the next beat; a worker must not die of this.
                log.warning("heartbeat failed: %s", error)
            except Exception:
                log.exception("heartbeat failed")

    def reap(self) -> list[str]:
        """Queue the studies of dead workers again; returns their workflow ids.

        Raises:
            ArchiveError: a database failed.
        """
        workers = self._archive.workers.list()
        self._silence.look(workers, time.monotonic())
        live = live_executors(workers, self._silence, self._host, self._dead_s)
        found = _orphans(live | {self._worker.executor_id})
        for workflow_id, name in found:
            log.warning("taking over %s from a worker that died", workflow_id)
            if name == STUDY:
                self._jobs.requeue(self._archive, *run_of(workflow_id))
            else:
                DBOS.resume_workflow(workflow_id, queue_name=OTHERS[name])
        for worker in workers:
            if worker.executor_id not in live and worker.executor_id != self._worker.executor_id:
                self._archive.workers.remove(worker.executor_id)
        return [workflow_id for workflow_id, _ in found]

    def sweep(self) -> None:
        """Queue studies that should run and that nothing will run, as a process died between two writes.

        Raises:
            ArchiveError: a database failed.
        """
        self._swept = time.monotonic()
        self._stranded = rescue(self._worker, self._jobs, self._stranded)


def rescue(worker: Worker, jobs: Jobs, suspects: Collection[str]) -> set[str]:
    """Queue the studies among `suspects` that still have no run that waits or is run.

    Args:
        worker: whose archive.
        jobs: the queues.
        suspects: ids of the runs that an earlier look found missing.

    Returns:
        Ids of the runs that are missing now; some are just between two states.

    Raises:
        ArchiveError: a database failed.
    """
    archive = worker.archive
    unfinished = archive.studies.unfinished(utc_now() - timedelta(seconds=SWEEP_SECONDS))
    if not unfinished:
        return set()
    in_flight = {run_of(workflow_id) for workflow_id in jobs.in_flight()}
    missing: set[str] = set()
    for study_id, epoch in unfinished:
        run = f"{study_id}/{epoch}"
        if (study_id, epoch) in in_flight:
            continue
        if run not in suspects:
            missing.add(run)
            continue
        log.warning("study %s was in no queue; queueing it again", study_id)
        restart(worker, jobs, study_id, epoch)
    return missing


def restart(worker: Worker, jobs: Jobs, study_id: str, epoch: int) -> None:
    """Queue a study whose current run waits in no queue and is run by nobody.

    Raises:
        ArchiveError: a database failed.
    """
    runs = jobs.runs(study_id)
    if epoch not in runs:
        jobs.enqueue(worker.archive.studies.get(study_id), epoch)
    else:
        jobs.requeue(worker.archive, study_id, epoch, max(*runs, epoch) + 1)


def _orphans(live: Collection[str]) -> list[tuple[str, str]]:
    """(id, name) of started workflows whose executor is not alive."""
    pending = DBOS.list_workflows(status="PENDING", name=[STUDY, *OTHERS], load_input=False, load_output=False)
    return [(w.workflow_id, w.name) for w in pending if w.executor_id not in live]
