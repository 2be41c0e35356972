"""Runs queued studies and schedules in this process, and is the place to submit, pause and cancel studies."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from types import TracebackType
from typing import Self

from dbos import DBOS, DBOSConfig
from sqlalchemy.exc import SQLAlchemyError

from env.errors import ApportionError
from env.spec import StudySpec
from planner.archive import Archive, ArchiveError, StudyRecord, open_archive
from planner.archive.studies import DEFAULT_PRIORITY, DEFAULT_QUEUE
from planner.durable.jobs import (
    APPLICATION,
    APPLICATION_VERSION,
    IDLE_TRANSACTION_S,
    POLL_SECONDS,
    Jobs,
    JobSettings,
    QueueState,
    fleet_queue,
    jobs_database,
    queue_of,
)
from planner.durable.reaper import Reaper, restart
from planner.durable.requests import request_cancel, request_pause
from planner.durable.scheduled_runs import CONCURRENT
from planner.durable.schedules import Ticker
from planner.durable.worker import Worker
from planner.durable.workflows import bind, unbind

MARGIN_S = 6.0
"""How long studies may take to end after they were cut off, before the process leaves without them."""

log = logging.getLogger(__name__)


class Runtime:
    """A worker process: DBOS, the archive, heartbeat and takeover. One per process.

    Args of the constructor:
        archive_url: see `planner.archive.open_engine`.
        jobs_url: DBOS's own database; a separate SQLite file, or the same PostgreSQL database (schema ``dbos``).
        work: whether this process runs studies, or only submits them.
        settings: limits of queues, and times.
    """

    def __init__(self, archive_url: str, jobs_url: str, work: bool = True, settings: JobSettings | None = None) -> None:
        self.archive: Archive = open_archive(archive_url)
        self.settings = settings or JobSettings()
        self._jobs_url = jobs_database(jobs_url)
        self._work = work
        self.executor_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._worker = Worker(self.archive, self.executor_id)
        self._ticker = Ticker(self.archive)

    def launch(self) -> Self:
        """Start DBOS, beat, take over what dead workers left, begin to work.

        Raises:
            ArchiveError: the jobs database cannot be opened.
        """
        for name in ("dbos", "dbos.dbos"):
            logging.getLogger(name).setLevel(logging.ERROR)
        bind(self._worker)
        DBOS(
            config=DBOSConfig(
                name=APPLICATION,
                system_database_url=self._jobs_url,
                application_version=APPLICATION_VERSION,
                executor_id=self.executor_id,
                scheduler_polling_interval_sec=1.0,
                log_level="ERROR",
                notification_listener_polling_interval_sec=0.5,
                sys_db_idle_transaction_timeout_sec=IDLE_TRANSACTION_S,
            )
        )
        if not self._work:
            DBOS.listen_queues([])
        elif self.settings.queues:
            DBOS.listen_queues([*self.settings.queues, *CONCURRENT])
        try:
            if self._work:
                self.archive.workers.beat(self.executor_id, socket.gethostname(), os.getpid())
            DBOS.launch()
            self._jobs = Jobs(self._jobs_url, self.settings)
            self._jobs.register(DEFAULT_QUEUE)
            own_fleet = fleet_queue()
            if own_fleet is not None:
                self._jobs.register(own_fleet)
            for queue, concurrent in CONCURRENT.items():
                DBOS.register_queue(queue, worker_concurrency=concurrent, polling_interval_sec=POLL_SECONDS)
            self._reaper = Reaper(self._worker, self._jobs, self.settings.dead_s)
            if self._work:
                self._reaper.start()
                self._ticker.start()
        except SQLAlchemyError as error:
            raise ArchiveError(f"the jobs database cannot be used: {type(error).__name__}") from error
        return self

    @property
    def stopping(self) -> bool:
        """Whether this process was asked to stop."""
        return self._worker.stopping.is_set()

    @property
    def trouble(self) -> dict[str, str]:
        """By study id: what keeps studies of this process from going on for the moment."""
        return dict(self._worker.trouble)

    def drain(self) -> None:
        """Take no more studies, and wait until those in flight have stopped at their next stored chunk.

        Returns after `JobSettings.shutdown_s` and a few seconds at most; whatever is left then is cut off.
        """
        self._worker.stop(self.settings.shutdown_s)
        while self._worker.active and time.monotonic() < self._worker.stop_by + MARGIN_S:
            time.sleep(0.05)

    def close(self) -> None:
        """Stop working and hand the studies in flight to the other workers, or to the next that starts."""
        self.drain()
        if self._work:
            self._ticker.stop()
            self._reaper.stop()
        DBOS.destroy(workflow_completion_timeout_sec=0)
        if self._work:
            try:
                self._hand_back()
                self.archive.workers.remove(self.executor_id)
            except ArchiveError as error:
                # The others find out by themselves that this worker is gone.
                log.warning("studies could not be handed back: %s", error)
        self._jobs.close()
        unbind()
        self.archive.close()

    def _hand_back(self) -> None:
        """Queue the next run of every study this process holds; DBOS takes none here any more."""
        for lease in self.archive.leases.of(self.executor_id):
            if self.archive.studies.get(lease.study_id).status in ("queued", "running"):
                self._jobs.requeue(self.archive, lease.study_id, lease.epoch)

    def __enter__(self) -> Self:
        return self.launch()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Studies -----------------------------------------------------------------------------------------------------

    def submit(
        self, spec: StudySpec, idempotency_key: str | None = None, priority: int = DEFAULT_PRIORITY
    ) -> StudyRecord:
        """Store a checked spec as a study and queue it; the same idempotency key gives the same study.

        Args:
            spec: a checked spec.
            idempotency_key: whoever sends it again means the same study.
            priority: studies of a queue with a lower one are started first.
        """
        study = self.archive.studies.create(
            uuid.uuid4().hex[:12],
            spec.name,
            spec.model_dump(mode="json"),
            spec.seed,
            idempotency_key,
            priority=priority,
            queue=queue_of(spec),
        )
        self.start(study)
        return study

    def start(self, study: StudyRecord) -> None:
        """Queue the first run of a study that was created just now; a study that began stays as it is."""
        if study.status == "queued" and self.archive.leases.get(study.id).epoch == 1:
            self._jobs.enqueue(study, 1)

    def pause(self, study_id: str) -> StudyRecord:
        """Ask a study to pause; see `request_pause`. What it drew is kept, and its place in the queue is free.

        Raises:
            StatusConflict: it has ended.
        """
        return request_pause(self.archive, study_id)

    def resume(self, study_id: str) -> StudyRecord:
        """See to it that a paused or interrupted study goes on; a finished or running one is left alone.

        Raises:
            ApportionError: the study ended as failed or cancelled; nothing follows these.
        """
        study = self.archive.studies.get(study_id)
        if study.status in ("failed", "cancelled"):
            raise ApportionError(f"study {study.id} is {study.status} and cannot go on; run its spec again instead")
        if study.status == "done":
            return study
        epoch = self.archive.leases.get(study_id).epoch
        if study.pause_requested:
            was_paused = study.status == "paused"
            study = self.archive.studies.withdraw_pause(study_id)
            if was_paused:
                key = f"status-queued-{epoch + 1}"
                self.archive.events.append(study_id, "status", {"status": "queued", "error": ""}, key)
                self._jobs.requeue(self.archive, study_id, epoch, max([*self._jobs.runs(study_id), epoch]) + 1)
            return study
        if self._work:
            self._reaper.reap()
            epoch = self.archive.leases.get(study_id).epoch
        running = self._jobs.runs(study_id)
        if not any(status in ("PENDING", "ENQUEUED", "DELAYED") for status in running.values()):
            # Its workflow never started or ended by an error outside the study: begin another run of the same study.
            restart(self._worker, self._jobs, study_id, epoch)
        return study

    def cancel(self, study_id: str) -> StudyRecord:
        """Ask a study to stop; see `request_cancel`."""
        return request_cancel(self.archive, study_id)

    def queues(self) -> list[QueueState]:
        """Every queue: how many studies wait and run, and its limits."""
        return [queue for queue in self._jobs.queues(self.archive) if queue.name not in CONCURRENT]
