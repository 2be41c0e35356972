"""Ledgers: reserve, run, settle, so that a budget holds across restarts and workers."""

from __future__ import annotations

import math

from sqlmodel import Session, col, func, select

from planner.archive.errors import ArchiveError, BudgetExhausted
from planner.archive.records import Ledger, LedgerEntry, LedgerUsage
from planner.archive.sessions import Sessions, insert_missing, serialise, utc_now
from planner.archive.tables import LedgerRow


class Ledgers:
    """The ledgers of all studies; safe to share between threads."""

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def reserve(
        self, study_id: str, ledger: Ledger, entry_key: str, unit: str, amount: float, limit: float | None
    ) -> None:
        """Set an amount aside before it is spent.

        A step that is run again finds its own entry, open or settled, and reserves nothing more.

        Args:
            study_id: an existing study.
            ledger: which of its budgets.
            entry_key: names what the amount is for; one entry per key.
            unit: of `amount` and `limit`; a ledger has one unit.
            amount: at least 0.
            limit: what settled and reserved amounts together may reach; None for no limit.

        Raises:
            BudgetExhausted: it would take the ledger above its limit; nothing was reserved.
            ArchiveError: another unit than the ledger's, an amount that is no amount, or no such study.
        """
        _check_amount(amount)
        with self._sessions.write() as session:
            serialise(session, "ledger", study_id, ledger)
            if session.get(LedgerRow, (study_id, ledger, entry_key)) is not None:
                return
            usage = _usage(session, study_id, ledger)
            if usage.unit not in ("", unit):
                raise ArchiveError(f"the {ledger} ledger of study {study_id} counts {usage.unit}, not {unit}")
            if limit is not None and usage.total + amount > limit:
                raise BudgetExhausted(ledger, unit, limit, usage.total, amount)
            entry = LedgerRow(
                study_id=study_id,
                ledger=ledger,
                entry_key=entry_key,
                unit=unit,
                reserved=amount,
                created_at=utc_now(),
            )
            insert_missing(session.connection(), LedgerRow, [entry.model_dump()])

    def settle(self, study_id: str, ledger: Ledger, entry_key: str, amount: float) -> None:
        """Replace a reservation by what was really spent (0 releases it); the first settlement of an entry stays.

        Raises:
            ArchiveError: nothing was reserved under this key, or an amount that is no amount.
        """
        _check_amount(amount)
        with self._sessions.write() as session:
            entry = session.get(LedgerRow, (study_id, ledger, entry_key), with_for_update=True)
            if entry is None:
                raise ArchiveError(f"the {ledger} ledger of study {study_id} has no entry {entry_key!r}; reserve first")
            if entry.settled is None:
                entry.settled = amount
                entry.settled_at = utc_now()
                session.add(entry)

    def entries(self, study_id: str, ledger: Ledger) -> list[LedgerEntry]:
        """Every entry of a ledger by key, open ones included."""
        query = select(LedgerRow).where(LedgerRow.study_id == study_id, LedgerRow.ledger == ledger)
        with self._sessions.read() as session:
            rows = session.exec(query.order_by(col(LedgerRow.entry_key)))
            return [LedgerEntry(row.entry_key, row.reserved, row.settled) for row in rows]

    def usage(self, study_id: str, ledger: Ledger) -> LedgerUsage:
        """What is settled and what is openly reserved."""
        with self._sessions.read() as session:
            return _usage(session, study_id, ledger)


def _check_amount(amount: float) -> None:
    if not math.isfinite(amount) or amount < 0:
        raise ArchiveError(f"a ledger takes finite amounts from 0 up, not {amount}")


def _usage(session: Session, study_id: str, ledger: str) -> LedgerUsage:
    settled, unit = func.sum(LedgerRow.settled), func.min(LedgerRow.unit)
    opened = func.sum(LedgerRow.reserved).filter(col(LedgerRow.settled).is_(None))
    query = select(settled, opened, unit).where(LedgerRow.study_id == study_id, LedgerRow.ledger == ledger)
    spent, reserved, found = session.exec(query).one()
    return LedgerUsage(float(spent or 0.0), float(reserved or 0.0), found or "")
