"""Leases: which run of a study may write about it, so that a worker taken for dead changes nothing when it wakes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text
from sqlmodel import Session, col, select, update

from planner.archive.errors import LeaseLost
from planner.archive.records import LeaseRecord
from planner.archive.sessions import IDLE_WRITE_S, Sessions, insert_missing, utc_now
from planner.archive.tables import LeaseRow

_LOOK_S = 0.5
_END_BLOCKERS = text(
    """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = ANY(pg_blocking_pids(:waiting)) AND xact_start < now() - make_interval(secs => :longest)
    """
)


class Leases:
    """The leases of all studies; safe to share between threads.

    A study is run in numbered runs, one after the other. The number of the run that may write is its epoch; it only
    ever grows, and each number is run by one worker at most.
    """

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def get(self, study_id: str) -> LeaseRecord:
        """The lease of a study; epoch 1 and no owner where nobody has had it."""
        with self._sessions.read() as session:
            row = session.get(LeaseRow, study_id)
            return LeaseRecord(study_id, 1, "") if row is None else LeaseRecord(study_id, row.epoch, row.owner)

    def claim(self, study_id: str, epoch: int, owner: str) -> bool:
        """Begin a run; False where a later one has begun.

        Raises:
            ArchiveError: no such study, or the database failed.
        """
        now = utc_now()
        with self._sessions.write() as session:
            connection = session.connection()
            first = LeaseRow(study_id=study_id, epoch=epoch, owner=owner, claimed_at=now)
            if insert_missing(connection, LeaseRow, [first.model_dump()]):
                return True
            mine = update(LeaseRow).where(col(LeaseRow.study_id) == study_id, col(LeaseRow.epoch) <= epoch)
            return connection.execute(mine.values(epoch=epoch, owner=owner, claimed_at=now)).rowcount > 0

    def advance(self, study_id: str, epoch: int, following: int | None = None) -> bool:
        """End a run from outside: nothing it writes from now on is taken. Of several callers one gets True.

        Args:
            study_id: which.
            epoch: the run that ends.
            following: number of the run that comes after; the next by default.
        """
        new = epoch + 1 if following is None else following
        mine = update(LeaseRow).where(col(LeaseRow.study_id) == study_id, col(LeaseRow.epoch) == epoch)
        with self._sessions.write() as session, self._freed(session):
            return session.connection().execute(mine.values(epoch=new, owner="", claimed_at=None)).rowcount > 0

    @contextmanager
    def _freed(self, session: Session) -> Iterator[None]:
        """End the transactions that hold the block up for longer than any write takes: their processes are frozen.

        PostgreSQL ends idle ones by itself, but not those that were frozen while they sent a batch of statements.
        """
        if self._sessions.engine.dialect.name != "postgresql":
            yield
            return
        waiting = session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar()
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_LOOK_S):
                with self._sessions.engine.connect() as connection:
                    connection.execute(_END_BLOCKERS, {"waiting": waiting, "longest": IDLE_WRITE_S})

        watcher = threading.Thread(target=watch, name="apportion-blockers", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def of(self, owner: str) -> list[LeaseRecord]:
        """The leases a worker holds; those of studies that have ended too."""
        with self._sessions.read() as session:
            rows = session.exec(select(LeaseRow).where(LeaseRow.owner == owner))
            return [LeaseRecord(row.study_id, row.epoch, row.owner) for row in rows]


class FencedSessions(Sessions):
    """Sessions of one run of a study: every transaction that writes is refused once a later run may have begun.

    The check shares the transaction of the write: SQLite has one writer at a time, and PostgreSQL holds the lease's
    row, so that whoever takes the study over waits for what was checked before, and sees it.
    """

    def __init__(self, engine: Engine, study_id: str, epoch: int) -> None:
        """Of one run of one study."""
        super().__init__(engine)
        self._study_id = study_id
        self._epoch = epoch
        lock = " FOR SHARE" if engine.dialect.name == "postgresql" else ""
        self._check = text(f"SELECT epoch FROM leases WHERE study_id = :study{lock}")

    @contextmanager
    def write(self) -> Iterator[Session]:
        """See `Sessions.write`.

        Raises:
            LeaseLost: a later run of the study has begun.
        """
        with super().write() as session:
            found = session.connection().execute(self._check, {"study": self._study_id}).scalar()
            if found != self._epoch:
                raise LeaseLost(
                    f"run {self._epoch} of study {self._study_id} was taken over by run {found}; nothing of it is kept"
                )
            yield session
