"""Proposals: what was suggested, on what prompt, and what review said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import defer
from sqlmodel import col, select, tuple_

from env.allocation import Allocation
from planner.archive.records import ProposalRecord, Verdict
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import ProposalRow


class Proposals:
    """The proposals of an archive; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def record(self, *proposals: ProposalRecord) -> int:
        """Store proposals in one transaction; the first of each (study, round, attempt, position) wins.

        Returns:
            How many were new.

        Raises:
            ArchiveError: no such study, or the database failed.
        """
        rows = [_values(proposal) for proposal in proposals]
        with self._sessions.write() as session:
            return insert_missing(session.connection(), ProposalRow, rows)

    def list(
        self,
        study_id: str,
        round: int | None = None,
        since: int | None = None,
        prompts: bool = True,
        origin: str | None = None,
    ) -> list[ProposalRecord]:
        """Proposals of a study in the order they were made.

        Args:
            study_id: the study; none where there is no such.
            round: only of this one.
            since: only of this round and later ones.
            prompts: read the prompts of LLM calls too; they are long, and None in what is answered without them.
            origin: only of this one.
        """
        query = select(ProposalRow).where(ProposalRow.study_id == study_id)
        if origin is not None:
            query = query.where(ProposalRow.origin == origin)
        if round is not None:
            query = query.where(ProposalRow.round == round)
        if since is not None:
            query = query.where(ProposalRow.round >= since)
        if not prompts:
            query = query.options(defer(col(ProposalRow.prompt)))  # type: ignore[arg-type]
        query = query.order_by(col(ProposalRow.round), col(ProposalRow.attempt), col(ProposalRow.position))
        with self._sessions.read() as session:
            return [_record(row, prompts) for row in session.exec(query)]

    def page(
        self,
        study_id: str,
        limit: int,
        after: tuple[int, int, int] | None = None,
        round: int | None = None,
        verdict: Verdict | None = None,
        origin: str | None = None,
    ) -> Sequence[ProposalRecord]:
        """Proposals of a study in the order they were made, at most `limit`.

        Args:
            study_id: the study; none where there is no such.
            limit: how many at most.
            after: round, attempt and position of the last one of the page before.
            round: only of this one.
            verdict: only with this one.
            origin: only of this one.
        """
        place = (ProposalRow.round, ProposalRow.attempt, ProposalRow.position)
        query = select(ProposalRow).where(ProposalRow.study_id == study_id)
        if after is not None:
            query = query.where(tuple_(*place) > after)
        if round is not None:
            query = query.where(ProposalRow.round == round)
        if verdict is not None:
            query = query.where(ProposalRow.verdict == verdict)
        if origin is not None:
            query = query.where(ProposalRow.origin == origin)
        with self._sessions.read() as session:
            return [_record(row) for row in session.exec(query.order_by(*map(col, place)).limit(limit))]

    def newest_refused(self, study_id: str, limit: int) -> Sequence[ProposalRecord]:
        """The last refused proposals of a study, the newest first, without prompts; calls of the LLM are none."""
        place = (ProposalRow.round, ProposalRow.attempt, ProposalRow.position)
        query = (
            select(ProposalRow)
            .where(ProposalRow.study_id == study_id, ProposalRow.verdict == "refused", ProposalRow.origin != "call")
            .order_by(*(col(part).desc() for part in place))
            .limit(limit)
            .options(defer(col(ProposalRow.prompt)))  # type: ignore[arg-type]
        )
        with self._sessions.read() as session:
            return [_record(row, prompts=False) for row in session.exec(query)]

    def of_allocation(self, study_id: str, allocation: Allocation) -> ProposalRecord | None:
        """The accepted proposal of an allocation, without its prompt; None where nobody proposed it."""
        query = (
            select(ProposalRow)
            .where(
                ProposalRow.study_id == study_id,
                ProposalRow.verdict == "accepted",
                ProposalRow.allocation_key == str(allocation),
                ProposalRow.origin != "call",
            )
            .options(defer(col(ProposalRow.prompt)))  # type: ignore[arg-type]
        )
        with self._sessions.read() as session:
            row = session.exec(query).first()
            return None if row is None else _record(row, prompts=False)


def _values(proposal: ProposalRecord) -> dict[str, Any]:
    allocation = proposal.allocation
    return asdict(proposal) | {
        "allocation": None if allocation is None else allocation.to_json(),
        "allocation_key": proposal.allocation_key,
        "call": dict(proposal.call),
        "created_at": utc_now(),
    }


def _record(row: ProposalRow, prompts: bool = True) -> ProposalRecord:
    left_out = {"allocation", "allocation_key", "call"} | (set() if prompts else {"prompt"})
    values = row.model_dump(exclude=left_out)
    allocation = Allocation.from_json(row.allocation) if row.allocation else None
    return ProposalRecord(allocation=allocation, call=row.call or {}, **values)
