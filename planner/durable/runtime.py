"""Runs queued studies and schedules in this process, and is the place to submit and cancel studies."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy.exc import SQLAlchemyError

from env.errors import ApportionError
from env.spec import StudySpec
from planner.archive import Archive, ArchiveError, StudyRecord, open_archive
from planner.archive.connection import parse_url
from planner.durable.reaper import Reaper, live_executors
from planner.durable.scheduled_runs import CONCURRENT
from planner.durable.schedules import Ticker
from planner.durable.workflows import STUDIES, bind, study_workflow, unbind

APPLICATION_VERSION = "apportion-1"
"""Version of the workflows' steps: raise it only when a study begun by older code can no longer be resumed."""

POLL_SECONDS = 0.2


class Runtime:
    """A worker process: DBOS, the archive, heartbeat and takeover. One per process.

    Args of the constructor:
        archive_url: see `planner.archive.open_engine`.
        jobs_url: DBOS's own database; a separate SQLite file, or the same PostgreSQL database (schema ``dbos``).
        work: whether this process runs studies, or only submits them.
        concurrency: studies this process runs at a time.
    """

    def __init__(self, archive_url: str, jobs_url: str, work: bool = True, concurrency: int = 1) -> None:
        self.archive: Archive = open_archive(archive_url)
        self._jobs_url = _jobs_url(jobs_url)
        self._work = work
        self._concurrency = concurrency
        self.executor_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._reaper = Reaper(self.archive, self.executor_id)
        self._ticker = Ticker(self.archive)

    def launch(self) -> Self:
        """Start DBOS, beat, take over what dead workers left, begin to work.

        Raises:
            ArchiveError: the jobs database cannot be opened.
        """
        for name in ("dbos", "dbos.dbos"):
            logging.getLogger(name).setLevel(logging.ERROR)
        bind(self.archive)
        DBOS(
            config=DBOSConfig(
                name="apportion",
                system_database_url=self._jobs_url,
                application_version=APPLICATION_VERSION,
                executor_id=self.executor_id,
                scheduler_polling_interval_sec=1.0,
                log_level="ERROR",
                notification_listener_polling_interval_sec=0.5,
            )
        )
        DBOS.listen_queues([STUDIES, *CONCURRENT] if self._work else [])
        try:
            DBOS.launch()
            DBOS.register_queue(STUDIES, worker_concurrency=self._concurrency, polling_interval_sec=POLL_SECONDS)
            for queue, concurrent in CONCURRENT.items():
                DBOS.register_queue(queue, worker_concurrency=concurrent, polling_interval_sec=POLL_SECONDS)
            if self._work:
                self._reaper.start()
                self._ticker.start()
        except SQLAlchemyError as error:
            raise ArchiveError(f"the jobs database cannot be used: {type(error).__name__}") from error
        return self

    def close(self) -> None:
        """Stop working; studies in flight go on in another worker or at the next start."""
        if self._work:
            self._ticker.stop()
            self._reaper.stop()
        DBOS.destroy(workflow_completion_timeout_sec=0)
        unbind()
        self.archive.close()

    def __enter__(self) -> Self:
        return self.launch()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Studies -----------------------------------------------------------------------------------------------------

    def submit(self, spec: StudySpec, idempotency_key: str | None = None) -> StudyRecord:
        """Store a checked spec as a study and queue it; the same idempotency key gives the same study."""
        study = self.archive.studies.create(
            uuid.uuid4().hex[:12], spec.name, spec.model_dump(mode="json"), spec.seed, idempotency_key
        )
        self._enqueue(study.id, study.id)
        return study

    def resume(self, study_id: str) -> StudyRecord:
        """See to it that an unfinished study goes on; a finished or running one is left alone.

        Raises:
            ApportionError: the study ended as failed or cancelled; nothing follows these.
        """
        study = self.archive.studies.get(study_id)
        if study.status in ("failed", "cancelled"):
            raise ApportionError(f"study {study.id} is {study.status} and cannot go on; run its spec again instead")
        if study.status == "done":
            return study
        if self._work:
            self._reaper.reap()
        runs = DBOS.list_workflows(workflow_id_prefix=study.id, load_input=False, load_output=False)
        if not any(run.status in ("PENDING", "ENQUEUED", "DELAYED") for run in runs):
            # Its workflow never started or ended by an error outside the study: begin another run of the same study.
            self._enqueue(study.id, study.id if not runs else f"{study.id}/run-{len(runs) + 1}")
        return study

    def cancel(self, study_id: str) -> StudyRecord:
        """Ask a study to stop; a queued one ends at once, a running one at its next stored chunk."""
        self.archive.studies.request_cancel(study_id)
        study = self.archive.studies.get(study_id)
        if study.status == "queued":
            return self.archive.studies.set_status(study_id, "cancelled")
        return study

    def _enqueue(self, study_id: str, workflow_id: str) -> None:
        with SetWorkflowID(workflow_id):
            DBOS.enqueue_workflow(STUDIES, study_workflow, study_id)

    # Workers -----------------------------------------------------------------------------------------------------

    def other_workers(self) -> set[str]:
        """Executor ids of the other workers that live."""
        live = live_executors(self.archive.workers.list(), datetime.now(UTC), socket.gethostname())
        return live - {self.executor_id}


def _jobs_url(url: str) -> str:
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return f"sqlite:///{parsed.database}"
    return parsed.render_as_string(hide_password=False)
