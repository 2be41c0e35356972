"""Ledgers: reserve, run, settle, so that a budget holds across restarts and workers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from sqlmodel import Session, col, func, select, tuple_

from planner.archive.errors import ArchiveError, BudgetExhausted
from planner.archive.records import Claim, Ledger, LedgerEntry, LedgerUsage, SettledShare
from planner.archive.sessions import Sessions, insert_missing, serialise, utc_now
from planner.archive.tables import LedgerRow


@dataclass(frozen=True)
class Decision:
    """What was granted of several entries that were reserved together."""

    granted: tuple[str, ...]
    """Keys of the entries that have their reservations."""

    refused: Mapping[str, BudgetExhausted]
    """Why the others have none; empty where the decision was taken by an earlier run."""

    known: bool
    """An earlier run of the same step had taken it."""

    totals: Mapping[str, float]
    """Settled and openly reserved in each limited ledger, these reservations included."""


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
            serialise(session, "ledger", study_id)
            if session.get(LedgerRow, (study_id, ledger, entry_key)) is not None:
                return
            usage = _usage(session, study_id, ledger)
            if usage.unit not in ("", unit):
                raise ArchiveError(f"the {ledger} ledger of study {study_id} counts {usage.unit}, not {unit}")
            if limit is not None and usage.total + amount > limit:
                raise BudgetExhausted(ledger, unit, limit, usage.total, amount)
            entry = _entry(study_id, entry_key, Claim(ledger, unit, amount, limit))
            insert_missing(session.connection(), LedgerRow, [entry])

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

    def reserve_batch(self, study_id: str, claims: Mapping[str, Sequence[Claim]]) -> Decision:
        """Set amounts aside for several entries in one transaction.

        In order, each entry is reserved in all its ledgers or in none, so that one that does not fit leaves its room
        to those after it. Where any of the entries is known, an earlier run of the same step took the decision: it
        stays, whatever has been settled since.

        Args:
            study_id: an existing study.
            claims: by entry key; the ledgers of an entry differ.

        Raises:
            ArchiveError: another unit than a ledger's, an amount that is no amount, or no such study.
        """
        for claim in (claim for wanted in claims.values() for claim in wanted):
            _check_amount(claim.amount)
        with self._sessions.write() as session:
            serialise(session, "ledger", study_id)
            keyed = select(LedgerRow.entry_key).where(*_these(study_id, list(claims)))
            known = set(session.exec(keyed))
            # Sums over all entries of a ledger, so only of those that somebody limits.
            limited = {claim.ledger for wanted in claims.values() for claim in wanted if claim.limit is not None}
            usages = _usages(session, study_id, limited)
            totals = {ledger: usage.total for ledger, usage in usages.items()}
            if known:
                return Decision(tuple(key for key in claims if key in known), {}, True, totals)
            granted: list[str] = []
            refused: dict[str, BudgetExhausted] = {}
            rows: list[Mapping[str, object]] = []
            for key, wanted in claims.items():
                _refuse_other_units(study_id, wanted, usages)
                refusal = _refusal(wanted, totals)
                if refusal is not None:
                    refused[key] = refusal
                    continue
                granted.append(key)
                for claim in wanted:
                    totals[claim.ledger] = totals.get(claim.ledger, 0.0) + claim.amount
                    rows.append(_entry(study_id, key, claim))
            insert_missing(session.connection(), LedgerRow, rows)
            return Decision(tuple(granted), refused, False, totals)

    def settle_entry(self, study_id: str, entry_key: str, amounts: Mapping[Ledger, float]) -> None:
        """Settle one entry in several ledgers; see `settle_batch`."""
        self.settle_batch(study_id, {entry_key: amounts})

    def settle_batch(self, study_id: str, amounts: Mapping[str, Mapping[Ledger, float]]) -> None:
        """Settle entries, by key, in several ledgers in one transaction; the first settlement of each stays.

        Raises:
            ArchiveError: nothing was reserved under a key in a ledger, or an amount that is no amount.
        """
        for amount in (amount for of_entry in amounts.values() for amount in of_entry.values()):
            _check_amount(amount)
        query = select(LedgerRow).where(*_these(study_id, list(amounts)))
        with self._sessions.write() as session:
            rows = {(row.entry_key, row.ledger): row for row in session.exec(query.with_for_update())}
            for key, of_entry in amounts.items():
                missing = sorted(ledger for ledger in of_entry if (key, ledger) not in rows)
                if missing:
                    raise ArchiveError(
                        f"the {', '.join(missing)} ledger of study {study_id} has no entry {key!r}; reserve first"
                    )
                for ledger, amount in of_entry.items():
                    row = rows[key, ledger]
                    if row.settled is None:
                        row.settled, row.settled_at = amount, utc_now()
                        session.add(row)

    def entries(self, study_id: str, entry_keys: Sequence[str]) -> dict[tuple[str, Ledger], tuple[float, float | None]]:
        """(reserved, settled or None) by entry key and ledger, of the entries there are."""
        query = select(LedgerRow).where(*_these(study_id, entry_keys))
        with self._sessions.read() as session:
            return {(r.entry_key, r.ledger): (r.reserved, r.settled) for r in session.exec(query)}  # type: ignore[misc]

    def usages(self, study_id: str) -> dict[Ledger, LedgerUsage]:
        """What is settled and openly reserved in every ledger that has an entry."""
        with self._sessions.read() as session:
            return _usages(session, study_id)  # type: ignore[return-value]

    def settled_shares(self, study_id: str) -> dict[Ledger, SettledShare]:
        """For every ledger with settled entries, what was reserved for them and what they came to."""
        query = (
            select(LedgerRow.ledger, func.sum(LedgerRow.reserved), func.sum(LedgerRow.settled))
            .where(LedgerRow.study_id == study_id, col(LedgerRow.settled).is_not(None))
            .group_by(LedgerRow.ledger)
        )
        with self._sessions.read() as session:
            rows = session.connection().execute(query)
            return {cast(Ledger, name): SettledShare(float(r or 0), float(s or 0)) for name, r, s in rows}

    def entries_of(self, study_id: str, ledger: Ledger) -> list[LedgerEntry]:
        """Every entry of a ledger by key, open ones included."""
        query = select(LedgerRow).where(LedgerRow.study_id == study_id, LedgerRow.ledger == ledger)
        with self._sessions.read() as session:
            rows = session.exec(query.order_by(col(LedgerRow.entry_key)))
            return [LedgerEntry(row.entry_key, row.reserved, row.settled) for row in rows]

    def page(
        self, study_id: str, limit: int, after: tuple[str, str] | None = None, ledger: Ledger | None = None
    ) -> list[tuple[str, str, LedgerEntry]]:
        """Entries of a study as (ledger, unit, entry), by ledger and key, at most `limit`.

        Args:
            study_id: the study; none where there is no such.
            limit: how many at most.
            after: ledger and key of the last one of the page before.
            ledger: only of this one.
        """
        place = (LedgerRow.ledger, LedgerRow.entry_key)
        query = select(LedgerRow).where(LedgerRow.study_id == study_id)
        if after is not None:
            query = query.where(tuple_(*place) > after)
        if ledger is not None:
            query = query.where(LedgerRow.ledger == ledger)
        with self._sessions.read() as session:
            rows = session.exec(query.order_by(*map(col, place)).limit(limit))
            return [(r.ledger, r.unit, LedgerEntry(r.entry_key, r.reserved, r.settled)) for r in rows]

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


def _usages(session: Session, study_id: str, of: Collection[str] | None = None) -> dict[str, LedgerUsage]:
    opened = func.sum(LedgerRow.reserved).filter(col(LedgerRow.settled).is_(None))
    query = (
        select(LedgerRow.ledger, func.sum(LedgerRow.settled), opened, func.min(LedgerRow.unit))
        .where(LedgerRow.study_id == study_id)
        .group_by(LedgerRow.ledger)
    )
    if of is not None:
        query = query.where(col(LedgerRow.ledger).in_(sorted(of)))
    return {row[0]: LedgerUsage(float(row[1] or 0.0), float(row[2] or 0.0), row[3]) for row in session.exec(query)}


def _refuse_other_units(study_id: str, claims: Sequence[Claim], usages: Mapping[str, LedgerUsage]) -> None:
    for claim in claims:
        unit = usages[claim.ledger].unit if claim.ledger in usages else claim.unit
        if unit != claim.unit:
            raise ArchiveError(f"the {claim.ledger} ledger of study {study_id} counts {unit}, not {claim.unit}")


def _refusal(claims: Sequence[Claim], totals: Mapping[str, float]) -> BudgetExhausted | None:
    """Why an entry does not fit: the first of its ledgers without room."""
    for claim in claims:
        total = totals.get(claim.ledger, 0.0)
        if claim.limit is not None and total + claim.amount > claim.limit:
            return BudgetExhausted(claim.ledger, claim.unit, claim.limit, total, claim.amount)
    return None


def _entry(study_id: str, entry_key: str, claim: Claim) -> dict[str, object]:
    return LedgerRow(
        study_id=study_id,
        ledger=claim.ledger,
        entry_key=entry_key,
        unit=claim.unit,
        reserved=claim.amount,
        created_at=utc_now(),
    ).model_dump()


def _these(study_id: str, entry_keys: Sequence[str]) -> tuple[Any, ...]:
    """Conditions for entries of any ledger. The ledgers are named for the key's index, whose second column they are."""
    named = col(LedgerRow.ledger).in_(get_args(Ledger))
    return (col(LedgerRow.study_id) == study_id, named, col(LedgerRow.entry_key).in_(list(entry_keys)))
