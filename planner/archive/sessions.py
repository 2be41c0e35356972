"""Short transactions on the archive's database: one kind that reads, one that writes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session

from planner.archive.connection import WRITE_OPTION, explained
from planner.archive.tables import ArchiveTable, table_of

IDLE_WRITE_S = 5
"""How long PostgreSQL waits for the next statement of a transaction that writes before it undoes it."""

_LIMIT_IDLE = f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_WRITE_S}s'"


class Sessions:
    """Hands out sessions on one engine; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        """Bind to an engine made by `open_engine`."""
        self.engine = engine
        self._writer = engine.execution_options(**{WRITE_OPTION: True})

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the archive and changes nothing.

        Raises:
            ArchiveError: the database failed.
        """
        with explained(self.engine), Session(self.engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed when the block ends, and undone where it raises.

        Raises:
            ArchiveError: the database failed or refused a row.
        """
        with explained(self.engine), Session(self._writer) as session, session.begin():
            if self.engine.dialect.name == "postgresql":
                # A process that is frozen here must not hold off for ever whoever takes over from it.
                session.connection().exec_driver_sql(_LIMIT_IDLE)
            yield session


def utc_now() -> datetime:
    """This moment, time-zone aware."""
    return datetime.now(UTC)


def insert_missing(connection: Connection, row: type[ArchiveTable], rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows whose keys the table does not hold yet; returns how many those were.

    The first row wins: what a table holds is never changed by this. Callers that insert several rows order them by key,
    so that two transactions never wait for each other.
    """
    if not rows:
        return 0
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table_of(row)).on_conflict_do_nothing()
    result = connection.execute(statement, list(rows), execution_options={"preserve_rowcount": True})
    return int(result.rowcount)


def serialise(session: Session, *subject: str) -> None:
    """Let one transaction at a time touch a subject until it ends.

    PostgreSQL takes an advisory lock; a writing SQLite transaction is alone already.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        digest = hashlib.blake2b("\x1f".join(subject).encode(), digest_size=8).digest()
        key = int.from_bytes(digest, "big", signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
