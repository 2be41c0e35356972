"""The audit log: who asked for which change, when, from where, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import col, delete, select

from planner.archive.sessions import Sessions, utc_now
from planner.archive.tables import AuditRow

_MOST_CHARS = 300


@dataclass(frozen=True)
class AuditRecord:
    """One change that was asked for. Times are in UTC."""

    id: int
    at: datetime
    kind: str
    """How the caller was known: token, session, loopback, command, nobody."""

    who: str
    """The token's name, the user's for a command."""

    source: str
    """The address it came from; the host's name for a command."""

    action: str
    """The method of a request, the words of a command."""

    subject: str
    """What it was about: a path, or what a command named."""

    result: str
    """The HTTP status of a request; done or failed for a command."""


class Audit:
    """The audit log of an archive; only retention removes from it. Safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def note(self, kind: str, who: str, source: str, action: str, subject: str, result: str) -> None:
        """Enter a change; long texts are cut.

        Raises:
            ArchiveError: the database failed.
        """
        row = AuditRow(
            at=utc_now(),
            kind=kind,
            who=_plain(who),
            source=_plain(source),
            action=_plain(action),
            subject=_plain(subject),
            result=result,
        )
        with self._sessions.write() as session:
            session.add(row)

    def list(
        self, limit: int = 100, before: int | None = None, filters: Mapping[str, str] | None = None
    ) -> list[AuditRecord]:
        """Entries, newest first.

        Args:
            limit: most to answer.
            before: only entries with smaller ids: the last one of the page before.
            filters: exact values of `who`, `kind`, `action`, `subject` or `result`.
        """
        query = select(AuditRow).order_by(col(AuditRow.id).desc()).limit(limit)
        if before is not None:
            query = query.where(col(AuditRow.id) < before)
        for name, value in (filters or {}).items():
            query = query.where(_column(name) == value)
        with self._sessions.read() as session:
            return [AuditRecord(**row.model_dump()) for row in session.exec(query)]

    def forget(self, before: datetime) -> int:
        """Remove entries older than a moment; returns how many those were."""
        with self._sessions.write() as session:
            statement = delete(AuditRow).where(col(AuditRow.at) < before)
            return int(session.connection().execute(statement).rowcount)


def _column(name: str) -> Any:
    columns = {
        "who": AuditRow.who, "kind": AuditRow.kind, "action": AuditRow.action,
        "subject": AuditRow.subject, "result": AuditRow.result,
    }  # fmt: skip
    return col(columns[name])


def _plain(text: str) -> str:
    """Text that both databases take, and that cannot pretend to be another line of a printed log."""
    kept = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else "?" for c in kept)[:_MOST_CHARS]
