"""The agent's accounts in the archive: ledgers of tokens and money, and every request it made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

from env.spec.study import ProposerBudget
from planner.archive import Archive, BudgetExhausted, ProposalRecord
from planner.loop.journal import CALL
from planner.proposers import Exchange, ToolCall
from planner.proposers.agent.accounts import OverBudgetError

FIRST_CALL = 1000
"""Position of a batch's first call, behind its proposals."""

REFLECTING = -1
"""Attempt under which a round's reflection is kept."""


class StudyAccounts:
    """`Accounts` of one study. One study runs on one worker at a time, so entries are numbered without a race.

    Args:
        archive: holds the study.
        study_id: which.
        budget: what its proposer may spend.
    """

    def __init__(self, archive: Archive, study_id: str, budget: ProposerBudget) -> None:
        self._archive = archive
        self._study_id = study_id
        self._budget = budget
        self._place = (0, 0)
        self._known: dict[str, Exchange] | None = None

    def at(self, round_: int, attempt: int) -> None:
        """Say which batch the next requests are for."""
        self._place = (round_, attempt)

    def recall(self, request: str) -> Exchange | None:
        """See `Accounts.recall`; requests of earlier processes included."""
        if self._known is None:
            rows = self._archive.proposals.list(self._study_id, origin=CALL)
            self._known = {
                exchange.request: exchange
                for row in rows
                if row.verdict == "accepted" and (exchange := exchange_of(row)).request
            }
        return self._known.get(request)

    def reserve(self, request: str, tokens: int, dollars: float | None) -> str:
        """See `Accounts.reserve`."""
        if self._budget.dollars is not None and dollars is None:
            raise OverBudgetError(
                "budget.proposer.dollars limits what the LLM may cost, and its price is not known: state proposer.price"
            )
        entry = self._new_entry(request)
        self._set_aside("proposer", entry, "tokens", tokens, self._budget.tokens)
        if dollars is not None:
            try:
                self._set_aside("proposer_money", entry, "dollars", dollars, self._budget.dollars)
            except OverBudgetError:
                self._archive.ledgers.settle(self._study_id, "proposer", entry, 0)
                raise
        return entry

    def settle(self, entry: str, tokens: int, dollars: float | None) -> None:
        """See `Accounts.settle`."""
        self._archive.ledgers.settle(self._study_id, "proposer", entry, tokens)
        if dollars is not None:
            self._archive.ledgers.settle(self._study_id, "proposer_money", entry, dollars)

    def keep(self, exchange: Exchange) -> Exchange:
        """See `Accounts.keep`; under the batch that `at` named."""
        round_, attempt = self._place
        rows = self._archive.proposals.list(self._study_id, round_, prompts=False, origin=CALL)
        number = sum(row.attempt == attempt for row in rows)
        self._archive.proposals.record(call_record(self._study_id, round_, attempt, number, exchange))
        kept = replace(exchange, kept=True)
        if self._known is not None and not kept.error and kept.request:
            self._known[kept.request] = kept
        return kept

    def _new_entry(self, request: str) -> str:
        """A key of its own for every attempt; one left open by a process that died is settled at what it reserved."""
        prefix = f"call-{request[:24]}-"
        number = 0
        for ledger in ("proposer", "proposer_money"):
            mine = [e for e in self._archive.ledgers.entries_of(self._study_id, ledger) if e.key.startswith(prefix)]
            number = max(number, len(mine))
            for entry in mine:
                if entry.settled is None:
                    self._archive.ledgers.settle(self._study_id, ledger, entry.key, entry.reserved)
        return f"{prefix}{number}"

    def _set_aside(
        self, ledger: Literal["proposer", "proposer_money"], entry: str, unit: str, amount: float, limit: float | None
    ) -> None:
        try:
            self._archive.ledgers.reserve(self._study_id, ledger, entry, unit, amount, limit)
        except BudgetExhausted as error:
            raise OverBudgetError(
                f"proposer budget exhausted: {error.remaining:g} {unit} left, the call may need {amount:g}"
            ) from error


def call_record(study_id: str, round_: int, attempt: int, number: int, exchange: Exchange) -> ProposalRecord:
    """An exchange as the archive keeps it: a row of its own behind the proposals it led to."""
    details: dict[str, Any] = {
        "prompts": exchange.prompts,
        "request": exchange.request,
        "seconds": round(exchange.seconds, 3),
    }
    optional: Mapping[str, Any] = {
        "cached_tokens": exchange.cached_tokens,
        "reasoning_tokens": exchange.reasoning_tokens,
        "dollars": exchange.dollars,
        "tool_calls": [asdict(call) for call in exchange.tool_calls],
    }
    return ProposalRecord(
        study_id,
        round_,
        attempt,
        FIRST_CALL + number,
        None,
        CALL,
        "refused" if exchange.error else "accepted",
        exchange.error,
        "the proposer's LLM was asked",
        None,
        exchange.prompt,
        exchange.reply,
        exchange.model,
        exchange.prompt_tokens,
        exchange.completion_tokens,
        details | {name: value for name, value in optional.items() if value},
    )


def exchange_of(row: ProposalRecord) -> Exchange:
    """The inverse of `call_record`."""
    call = row.call
    return Exchange(
        row.llm_model or "",
        row.prompt or "",
        row.reply or "",
        row.tokens_in,
        row.tokens_out,
        row.verdict_reason,
        float(call.get("seconds", 0.0)),
        int(call.get("cached_tokens", 0)),
        int(call.get("reasoning_tokens", 0)),
        call.get("dollars"),
        tuple(ToolCall(**tool) for tool in call.get("tool_calls", ())),
        str(call.get("request", "")),
        str(call.get("prompts", "")),
        kept=True,
    )
