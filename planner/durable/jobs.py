"""The queues that studies wait in, and how the runs of a study get into them and out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dbos import DBOSClient, EnqueueOptions
from sqlalchemy.exc import SQLAlchemyError

from env.spec import StudySpec
from planner.archive import Archive, ArchiveUnavailable, StudyRecord
from planner.archive.connection import parse_url
from planner.archive.studies import DEFAULT_QUEUE

APPLICATION = "apportion"
APPLICATION_VERSION = "apportion-1"
"""Version of the workflows' steps: raise it only when a study begun by older code can no longer be resumed."""

STUDY = "study"
"""Name of the workflow that runs a study."""

IN_FLIGHT = ("PENDING", "ENQUEUED", "DELAYED")
"""States of workflows that have not ended."""

POLL_SECONDS = 0.2

IDLE_TRANSACTION_S = 5.0
"""How long PostgreSQL lets a transaction on the job tables be idle: a frozen process must not hold the others up."""


@dataclass(frozen=True)
class JobSettings:
    """Limits and times of the jobs. A limit that is None stays as an earlier process set it: limits are shared."""

    concurrency: int | None = None
    """Studies of one queue that a worker runs at a time; 1 where nobody set it."""

    total: int | None = None
    """Studies of the plain queue that all workers together run at a time; no limit where nobody set it."""

    fleet: int | None = None
    """The same for the queue of a fleet; 1 where nobody set it, so that no two studies want its devices."""

    queues: tuple[str, ...] = ()
    """Queues this process takes studies from; every one by default."""

    dead_s: float = 5.0
    """Silence after which a worker counts as dead. On this host a process that is gone counts at once."""

    shutdown_s: float = 10.0
    """How long a step may go on to its next stored chunk when the process is asked to stop."""


@dataclass(frozen=True)
class QueueState:
    """One queue: how many studies wait and run, and its limits."""

    name: str
    waiting: int
    running: int
    per_worker: int | None
    """Studies that one worker runs at a time; None for no limit."""

    total: int | None
    """Studies that all workers run at a time; None for no limit."""


def run_id(study_id: str, epoch: int) -> str:
    """Id of the workflow that is a study's run of this number, from 1."""
    return study_id if epoch == 1 else f"{study_id}/run-{epoch}"


def run_of(workflow_id: str) -> tuple[str, int]:
    """(study id, number of the run) of a workflow."""
    study_id, _, number = workflow_id.partition("/run-")
    return study_id, int(number) if number.isdecimal() else 1


def queue_of(spec: StudySpec) -> str:
    """The queue of a study: that of the fleet its models live on, else the plain one."""
    if not any(model.backend == "fleet" for model in spec.pipeline.models.values()):
        return DEFAULT_QUEUE
    return fleet_queue() or DEFAULT_QUEUE


def fleet_queue() -> str | None:
    """The queue of this process's fleet, named after its file; None where it has none."""
    # Imported here: most processes have no fleet.
    from env.fleet.load import FLEET_VARIABLE

    path = os.environ.get(FLEET_VARIABLE)
    return f"fleet-{Path(path).stem}" if path else None


def jobs_database(url: str) -> str:
    """The job database's URL as DBOS wants it."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return f"sqlite:///{parsed.database}"
    return parsed.render_as_string(hide_password=False)


class Jobs:
    """Puts runs of studies into queues; works beside a launched DBOS, and after it has ended.

    Args:
        url: of the job database, which DBOS has set up.
        settings: limits of queues.
    """

    def __init__(self, url: str, settings: JobSettings) -> None:
        self._settings = settings
        self._client = DBOSClient(
            system_database_url=url,
            application_name=APPLICATION,
            # Whoever asks gets an error to act on; the workflows themselves wait.
            retry_connection_errors=False,
            sys_db_idle_transaction_timeout_sec=IDLE_TRANSACTION_S,
        )
        self._registered: set[str] = set()

    def close(self) -> None:
        """Give back the connections."""
        self._client.destroy()

    def register(self, queue: str) -> None:
        """See to it that a queue exists; limits that this process states are set, others stay."""
        if queue in self._registered:
            return
        s = self._settings
        plain = queue == DEFAULT_QUEUE
        stated = s.concurrency is not None or (s.total if plain else s.fleet) is not None
        self._client.register_queue(
            queue,
            worker_concurrency=s.concurrency or 1,
            global_concurrency=s.total if plain else s.fleet or 1,
            polling_interval_sec=POLL_SECONDS,
            on_conflict="always_update" if stated else "never_update",
        )
        self._registered.add(queue)

    def enqueue(self, study: StudyRecord, epoch: int) -> None:
        """Queue a run of a study; one that was queued before is left as it is.

        Raises:
            ArchiveUnavailable: the job database cannot be used.
        """
        try:
            self.register(study.queue)
            options = EnqueueOptions(
                workflow_name=STUDY,
                queue_name=study.queue,
                workflow_id=run_id(study.id, epoch),
                app_version=APPLICATION_VERSION,
                priority=study.priority,
            )
            self._client.enqueue(options, study.id)
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def requeue(self, archive: Archive, study_id: str, epoch: int, following: int | None = None) -> bool:
        """End a run of a study and queue the next where the study is to go on; False where another did so before.

        Whatever the old run still wants to write is refused from here on.

        Args:
            archive: holds the study.
            study_id: which.
            epoch: the run that ends.
            following: number of the next run; one more by default.

        Raises:
            ArchiveError: a database cannot be used. Calling it again goes on where it stopped.
        """
        following = epoch + 1 if following is None else following
        won = archive.leases.advance(study_id, epoch, following)
        study = archive.studies.get(study_id)
        if won and study.status == "running":
            study = archive.studies.set_status(study_id, "queued")
            payload = {"status": "queued", "error": ""}
            archive.events.append(study_id, "status", payload, f"status-queued-{following}")
        if won and study.status == "queued":
            self.enqueue(study, following)
        self.cancel(run_id(study_id, epoch))
        return won

    def cancel(self, workflow_id: str) -> None:
        """End a workflow; one that has ended, or never was, is left alone.

        Raises:
            ArchiveUnavailable: the job database cannot be used.
        """
        try:
            if self.in_flight([workflow_id]):
                self._client.cancel_workflow(workflow_id)
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def in_flight(self, workflow_ids: list[str] | None = None) -> set[str]:
        """Ids of the runs that wait or are run; only those of a list where given.

        Raises:
            ArchiveUnavailable: the job database cannot be used.
        """
        try:
            found = self._client.list_workflows(
                workflow_ids=workflow_ids, status=list(IN_FLIGHT), name=STUDY, load_input=False, load_output=False
            )
        except SQLAlchemyError as error:
            raise _unusable(error) from error
        return {workflow.workflow_id for workflow in found}

    def runs(self, study_id: str) -> dict[int, str]:
        """State by number, of all runs of a study that were ever queued.

        Raises:
            ArchiveUnavailable: the job database cannot be used.
        """
        try:
            found = self._client.list_workflows(
                workflow_id_prefix=study_id, name=STUDY, load_input=False, load_output=False
            )
        except SQLAlchemyError as error:
            raise _unusable(error) from error
        numbered = ((run_of(workflow.workflow_id), workflow.status) for workflow in found)
        return {epoch: str(status) for (of, epoch), status in numbered if of == study_id}

    def queues(self, archive: Archive) -> list[QueueState]:
        """Every queue by name.

        Raises:
            ArchiveError: a database cannot be used.
        """
        counts = {count.queue: count for count in archive.studies.queues()}
        try:
            known = {q.name: q for q in self._client.list_queues(application_name=APPLICATION)}
        except SQLAlchemyError as error:
            raise _unusable(error) from error
        return [
            QueueState(
                name,
                counts[name].waiting if name in counts else 0,
                counts[name].running if name in counts else 0,
                known[name].worker_concurrency if name in known else None,
                known[name].global_concurrency if name in known else None,
            )
            for name in sorted({*counts, *known})
        ]


def _unusable(error: SQLAlchemyError) -> ArchiveUnavailable:
    detail = str(getattr(error, "orig", error)).splitlines()[0]
    return ArchiveUnavailable(
        f"the job database cannot be used ({type(error).__name__}: {detail}); check that its server runs and its disk "
        "has room, then try again"
    )
