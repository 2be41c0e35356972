"""Finds studies whose worker died and puts them back into the queue."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from dbos import DBOS

from env.errors import ApportionError
from env.fleet.processes import process_exists
from planner.archive import Archive, WorkerRecord
from planner.durable.scheduled_runs import ALERTS, RUNS
from planner.durable.workflows import STUDIES

QUEUES = {"study": STUDIES, "schedule_run": RUNS, "schedule_run_end": RUNS, "deliver_alert": ALERTS}
"""Where a workflow waits to be taken over, by its name."""

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
DEAD_SECONDS = 15.0
"""Silence after which a worker counts as dead. On this host a process that is gone counts at once."""


def live_executors(workers: Iterable[WorkerRecord], now: datetime, host: str) -> set[str]:
    """Executor ids of the workers that live: recent beat, and on this host a process that exists."""
    recent = now - timedelta(seconds=DEAD_SECONDS)
    return {w.executor_id for w in workers if w.last_beat >= recent and (w.host != host or process_exists(w.pid))}


def orphans(live: Collection[str]) -> dict[str, str]:
    """Ids of started workflows whose executor is not alive, and the queues they belong in."""
    pending = DBOS.list_workflows(status="PENDING", name=list(QUEUES), load_input=False, load_output=False)
    return {w.workflow_id: QUEUES[w.name] for w in pending if w.executor_id not in live}


class Reaper:
    """A thread that beats for this worker and takes over for dead ones."""

    def __init__(self, archive: Archive, executor_id: str) -> None:
        self._archive = archive
        self._executor_id = executor_id
        self._host = socket.gethostname()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="apportion-reaper", daemon=True)

    def start(self) -> None:
        """Beat once and look once before returning, then keep on in the background."""
        self._beat_and_reap()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and strike this worker off."""
        self._stop.set()
        self._thread.join(timeout=10)
        self._archive.workers.remove(self._executor_id)

    def _run(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._beat_and_reap()
            except ApportionError as error:
                # The database may be back at the next beat; a worker must not die of this.
                log.warning("heartbeat failed: %s", error)
            except Exception:
                log.exception("heartbeat failed")

    def _beat_and_reap(self) -> None:
        self._archive.workers.beat(self._executor_id, self._host, os.getpid())
        self.reap()

    def reap(self) -> list[str]:
        """Queue the studies of dead workers again; returns their workflow ids.

        One process at a time looks and resumes, so that no study is resumed twice.
        """
        workers = self._archive.workers.list()
        now = datetime.now(UTC)
        live = live_executors(workers, now, self._host)
        if not orphans(live):
            return []
        with self._archive.exclusive("reaper"):
            found = orphans(live_executors(self._archive.workers.list(), now, self._host))
            for workflow_id, queue in found.items():
                log.warning("taking over %s from a worker that died", workflow_id)
                DBOS.resume_workflow(workflow_id, queue_name=queue)
        for worker in workers:
            if worker.executor_id not in live:
                self._archive.workers.remove(worker.executor_id)
        return list(found)
