"""The one door to what studies leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Engine

from planner.archive.access import Tokens
from planner.archive.audit import Audit
from planner.archive.bank import SqlSampleBank
from planner.archive.browsing import Browsing
from planner.archive.connection import label, open_engine
from planner.archive.datasets import Datasets
from planner.archive.events import Events
from planner.archive.guidelines import Guidelines
from planner.archive.ledgers import Ledgers
from planner.archive.migration import migrate, require_head
from planner.archive.pipelines import Pipelines
from planner.archive.plans import Plans
from planner.archive.promotions import Promotions
from planner.archive.proposals import Proposals
from planner.archive.schedule_runs import ScheduleAlerts, ScheduleRuns
from planner.archive.schedules import Schedules
from planner.archive.sessions import Sessions, serialise
from planner.archive.studies import Studies
from planner.archive.trials import Trials
from planner.archive.workers import Workers


class Archive:
    """Reads and writes the archive's rows, one attribute a subject.

    All calls are synchronous and short: one transaction each. Those a workflow step may repeat are idempotent. Safe to
    share between threads; every process opens its own.
    """

    def __init__(self, engine: Engine) -> None:
        """Bind to a migrated engine made by `open_engine`."""
        sessions = Sessions(engine)
        self.engine = engine
        self._sessions = sessions
        self.bank = SqlSampleBank(engine)
        self.studies = Studies(sessions)
        self.trials = Trials(sessions)
        self.browsing = Browsing(sessions)
        self.proposals = Proposals(sessions)
        self.guidelines = Guidelines(sessions)
        self.plans = Plans(sessions)
        self.datasets = Datasets(sessions)
        self.promotions = Promotions(sessions)
        self.pipelines = Pipelines(sessions)
        self.ledgers = Ledgers(sessions)
        self.events = Events(sessions)
        self.workers = Workers(sessions)
        self.schedules = Schedules(sessions)
        self.schedule_runs = ScheduleRuns(sessions)
        self.alerts = ScheduleAlerts(sessions)
        self.tokens = Tokens(sessions)
        self.audit = Audit(sessions)

    @property
    def place(self) -> str:
        """Where the archive lives, for people; without credentials."""
        return label(self.engine.url)

    @contextmanager
    def exclusive(self, subject: str) -> Iterator[None]:
        """Let one process at a time be in this block for a subject; keep it short, on SQLite it holds off all writers.

        Raises:
            ArchiveError: the database failed.
        """
        with self._sessions.write() as session:
            serialise(session, "exclusive", subject)
            yield

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_archive(url: str, upgrade: bool = True) -> Archive:
    """Open the archive at a URL.

    Args:
        url: see `open_engine`.
        upgrade: bring an older or empty database to this code's schema; otherwise it must have it already.

    Raises:
        ArchiveError: it cannot be reached, read or written, or its schema is newer than this code.
    """
    engine = open_engine(url)
    try:
        migrate(engine) if upgrade else require_head(engine)
    except BaseException:
        engine.dispose()
        raise
    return Archive(engine)
