"""Totals over a whole archive, for those who watch the service rather than a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine, func, select

from planner.archive.sessions import Sessions, utc_now
from planner.archive.tables import LedgerRow, StudyRow, TrialRow, WorkerRow, table_of

LIVE_SECONDS = 15.0
"""A worker that was heard of within this time counts as living."""


@dataclass(frozen=True)
class Totals:
    """What an archive holds, in numbers."""

    studies: Mapping[str, int]
    """By status."""

    trials: Mapping[tuple[str, str], int]
    """By (split, status)."""

    spent: Mapping[tuple[str, str], float]
    """Settled amounts by (ledger, unit), over all studies."""

    workers: int
    oldest_queued_s: float
    """Age of the study that has waited longest; 0 where none waits."""


class ArchiveTotals:
    """Counts in one transaction; a few milliseconds at 10,000 trials, as draws are counted by the ledgers."""

    def __init__(self, engine: Engine) -> None:
        """Bind to a migrated engine made by `open_engine`."""
        self._sessions = Sessions(engine)

    def read(self) -> Totals:
        """Count.

        Raises:
            ArchiveError: the database failed.
        """
        studies, trials = table_of(StudyRow).c, table_of(TrialRow).c
        entries, workers = table_of(LedgerRow).c, table_of(WorkerRow).c
        now = utc_now()
        with self._sessions.read() as session:
            connection = session.connection()
            by_status = connection.execute(select(studies.status, func.count()).group_by(studies.status))
            ran = connection.execute(
                select(trials.split, trials.status, func.count()).group_by(trials.split, trials.status)
            )
            spent = connection.execute(
                select(entries.ledger, entries.unit, func.coalesce(func.sum(entries.settled), 0.0)).group_by(
                    entries.ledger, entries.unit
                )
            )
            living = select(func.count()).where(workers.last_beat >= now - timedelta(seconds=LIVE_SECONDS))
            oldest = connection.execute(select(func.min(studies.created_at)).where(studies.status == "queued")).scalar()
            return Totals(
                {row.status: row[1] for row in by_status},
                {(split, status): count for split, status, count in ran},
                {(ledger, unit): float(amount) for ledger, unit, amount in spent},
                int(connection.execute(living).scalar_one()),
                0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()),
            )
