"""Events: what happened in a study, in order, for those who watch and those who come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import insert
from sqlmodel import Session, col, func, select

from planner.archive.records import EventRecord
from planner.archive.sessions import Sessions, insert_missing, serialise, utc_now
from planner.archive.tables import EventRow, table_of


class Events:
    """The events of all studies; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def append(self, study_id: str, kind: str, payload: Mapping[str, Any], key: str | None = None) -> int:
        """Add an event and return its id.

        The events of one study are committed in the order of their ids, so that a reader who has seen one id misses
        none before it.

        Args:
            study_id: an existing study.
            kind: for instance ``trial`` or ``phase``.
            payload: JSON.
            key: names the event within its study, so that a step that is run again adds none; None always adds one.

        Raises:
            ArchiveError: no such study, a payload that is not JSON, or the database failed.
        """
        with self._sessions.write() as session:
            serialise(session, "events", study_id)
            return _append(session, study_id, kind, payload, key)

    def append_all(self, study_id: str, events: Iterable[tuple[str, Mapping[str, Any], str | None]]) -> None:
        """Add events in one transaction; each is (kind, payload, key), see `append`.

        Raises:
            ArchiveError: no such study, a payload that is not JSON, or the database failed; then none was added.
        """
        with self._sessions.write() as session:
            serialise(session, "events", study_id)
            rows = [_values(study_id, kind, payload, key) for kind, payload, key in events]
            insert_missing(session.connection(), EventRow, rows)

    def after(self, study_id: str, last_id: int = 0, limit: int = 500) -> list[EventRecord]:
        """Events with ids above `last_id`, oldest first, at most `limit`."""
        query = select(EventRow).where(EventRow.study_id == study_id, col(EventRow.id) > last_id)
        with self._sessions.read() as session:
            rows = session.exec(query.order_by(col(EventRow.id)).limit(limit))
            return [EventRecord(**row.model_dump(exclude={"event_key"})) for row in rows]

    def of_all(self, above: int, limit: int = 500, kinds: Sequence[str] = ()) -> list[EventRecord]:
        """Events of all studies with ids above one, oldest first, at most `limit`, of some kinds only where given.

        Unlike one study's, events of different studies may become visible out of the order of their ids: whoever must
        miss none asks again from some events back.
        """
        query = select(EventRow).where(col(EventRow.id) > above)
        if kinds:
            query = query.where(col(EventRow.kind).in_(list(kinds)))
        with self._sessions.read() as session:
            rows = session.exec(query.order_by(col(EventRow.id)).limit(limit))
            return [EventRecord(**row.model_dump(exclude={"event_key"})) for row in rows]

    def newest(self) -> int:
        """Id of the newest event of all studies; 0 where there is none."""
        with self._sessions.read() as session:
            return int(session.exec(select(func.max(EventRow.id))).one() or 0)

    def named(self, study_id: str, key: str) -> EventRecord | None:
        """The event of a study with this key; None where there is none."""
        query = select(EventRow).where(EventRow.study_id == study_id, EventRow.event_key == key)
        with self._sessions.read() as session:
            row = session.exec(query).first()
            return None if row is None else EventRecord(**row.model_dump(exclude={"event_key"}))

    def latest(self, study_id: str, kind: str | None = None) -> EventRecord | None:
        """The newest event, of one kind where given; None where there is none."""
        query = select(EventRow).where(EventRow.study_id == study_id)
        if kind is not None:
            query = query.where(EventRow.kind == kind)
        with self._sessions.read() as session:
            row = session.exec(query.order_by(col(EventRow.id).desc()).limit(1)).first()
            return None if row is None else EventRecord(**row.model_dump(exclude={"event_key"}))


def _append(session: Session, study_id: str, kind: str, payload: Mapping[str, Any], key: str | None) -> int:
    if key is not None:
        known = select(EventRow.id).where(EventRow.study_id == study_id, EventRow.event_key == key)
        existing = session.exec(known).first()
        if existing is not None:
            return existing
    added = session.connection().execute(insert(table_of(EventRow)).values(**_values(study_id, kind, payload, key)))
    return int((added.inserted_primary_key or (0,))[0])


def _values(study_id: str, kind: str, payload: Mapping[str, Any], key: str | None) -> dict[str, Any]:
    return {
        "study_id": study_id,
        "event_key": key,
        "kind": kind,
        "payload": dict(payload),
        "created_at": utc_now(),
    }
