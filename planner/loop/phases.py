"""The phases of the loop as idempotent steps: each reads its state from the archive and leaves its result there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from env.allocation import Allocation
from env.execution import AllowanceSpent, TrialResult
from env.spans import span
from planner.archive import BudgetExhausted, GuidelineRecord, ProposalRecord
from planner.history import Guideline, History, RefusedView
from planner.loop.accounts import REFLECTING, call_record
from planner.loop.budgets import Numbered, Reserved
from planner.loop.context import StudyContext
from planner.loop.convergence import QUIET_ROUNDS, Convergence
from planner.loop.engines import settle_engines
from planner.loop.incumbent import Incumbents
from planner.loop.journal import CALL, Journal
from planner.outlay import LIMITS
from planner.proposers import Exchange, Proposal, Suggestions
from planner.review import Check, Verdict, review

MAX_ATTEMPTS = 2
"""Batches a proposer may get refused in one round before the insight policy fills in."""

MAX_LLM_FAILURES = 3
"""Rounds in a row without a usable reply after which the LLM is not asked again in this study."""

GUIDED = frozenset({"agent", "insight"})
"""Proposers for which the insight policy writes the guidelines they leave out; a rival is measured by its own."""


class Phases:
    """What each node of the graph does. Results are plain JSON; everything else is in the archive."""

    def __init__(self, context: StudyContext) -> None:
        self._context = context
        self._incumbents = Incumbents(context)
        self._convergence = Convergence(context)

    async def initialise(self) -> int:
        """Review and store the initial trials; returns how many were accepted."""
        context = self._context
        context.enter("initialise", 0)
        context.archive.studies.set_proposer(context.study_id, context.proposer.kind)
        if not _reviewed(context.journal(), 0, 0):
            suggestions = await context.proposer.initial(context.history(0))
            self._charge("initial", suggestions.exchanges)
            self._review(0, 0, suggestions, context.trials_left())
        if not self._accepted_in(0) and not _reviewed(context.journal(), 0, MAX_ATTEMPTS):
            # An LLM that is down when a study begins must not end it.
            filled = await context.insight.initial(context.history(0))
            self._review(0, MAX_ATTEMPTS, _filling(filled), context.trials_left())
        return self._accepted_in(0)

    async def execute(self, round_: int) -> int:
        """Run the accepted proposals of a round that the search budget covers, together.

        All of them or none: a draw belongs to the first allocation of the batch that asked for it, so a batch cut off
        while its trials were being recorded is counted again as a whole. That draws nothing which is held.

        Returns:
            How many ran to their ends; 0 ends the search.
        """
        context = self._context
        context.enter("execute", round_)
        journal = context.journal()
        waiting = [
            (number, allocation)
            for number in journal.accepted_by_round.get(round_, ())
            if (allocation := journal.accepted[number - 1].allocation) is not None
        ]
        reserved = self._reserve(round_, waiting, journal.drift)
        if not reserved.granted:
            return 0
        if all(n in journal.numbers for n, _ in reserved.granted) and context.budgets.settled(reserved.granted):
            cut = any(t.status == "cut" for t in journal.trials if t.round == round_)
            return 0 if cut else len(reserved.granted)
        return await self._run(round_, reserved)

    async def _run(self, round_: int, reserved: Reserved) -> int:
        context = self._context
        await settle_engines(context)
        origin, started = f"{context.study_id}/round-{round_}", time.monotonic()
        allowance = context.budgets.allowance(reserved, origin)
        numbers = [number for number, _ in reserved.granted]
        try:
            # The trials of a batch share their draws, hence one span.
            with span("trial", study=context.study_id, split="search", round=round_, trials=numbers) as watched:
                results = await context.environment.run_batch(
                    [a for _, a in reserved.granted],
                    context.splits.search,
                    origin,
                    context.progress_sink(round_, f"round {round_}: {len(reserved.granted)} trials"),
                    allowance,
                    self._incumbents.race(numbers),
                )
                watched.note(**_outcome(results))
        except AllowanceSpent as spent:
            seconds = time.monotonic() - started
            ended = context.budgets.cut(reserved, origin, allowance, seconds)
            priced = {n: replace(cut, predicted_cost=context.space.total(cut.allocation)) for n, cut in ended.items()}
            self._record_trials(round_, priced, cut=True)
            context.stop(
                spent.name,
                f"{spent}; the {len(reserved.granted)} trials of the batch have no score; {context.unused}",
            )
            return 0
        by_number = {number: result for (number, _), result in zip(reserved.granted, results, strict=True)}
        self._record_trials(round_, by_number)
        # Last: a batch whose entries are settled is not looked at again.
        context.budgets.settle(by_number)
        return len(reserved.granted)

    def _record_trials(self, round_: int, results: Mapping[int, TrialResult], cut: bool = False) -> None:
        context = self._context
        events: dict[str, dict[str, object]] = {}
        for number, result in results.items():
            trial = context.archive.trials.record(
                context.study_id, number, "search", round_, result, context.space.unit, cut
            )
            events[f"trial-{number}"] = {
                "trial_no": number,
                "round": round_,
                "allocation": str(trial.allocation),
                "score": trial.score,
                "cost": trial.predicted_cost,
                "new_draws": trial.spend.new_draws,
                "failed": trial.failed,
                "examples": trial.scored + trial.failed,
                "stopped": trial.stopped,
                "cut": cut,
            }
        context.events("trial", events)

    def _reserve(self, round_: int, waiting: Sequence[Numbered], drift: float) -> Reserved:
        """Set aside what each trial may take; those that a ledger has no room for do not run."""
        context = self._context
        reserved = context.budgets.reserve(waiting, drift)
        for number, error in reserved.refused.items():
            context.event(
                "budget",
                {
                    "round": round_,
                    "trial_no": number,
                    "limit": limit_of(error),
                    "left": error.remaining,
                    "needed": error.asked,
                    "unit": error.unit,
                    "message": str(error),
                },
                f"no-{number}",
            )
        if reserved.refused and not reserved.granted:
            least = min(reserved.refused.values(), key=lambda error: error.asked)
            context.stop(
                limit_of(least),
                f"{least.remaining:.6g} of {least.limit:.6g} {least.unit} were left, and the least that a trial of "
                f"this round may take is {least.asked:.6g}; {context.unused}",
                left=least.remaining,
                needed=least.asked,
            )
        return reserved

    async def reflect(self, round_: int) -> int:
        """Write the round's guidelines; the insight policy's where the proposer has none.

        Returns:
            How many trials the search budget still allows.
        """
        context = self._context
        context.enter("reflect", round_)
        history = context.history(round_)
        guidelines: tuple[Guideline, ...] = ()
        if self._llm_usable(round_):
            context.accounts.at(round_, REFLECTING)
            reflection = await context.proposer.reflect(history)
            guidelines = reflection.guidelines
            self._charge(f"reflect-{round_}", reflection.exchanges)
            self._store_exchanges(round_, REFLECTING, reflection.exchanges)
        if not guidelines and context.proposer.kind in GUIDED:
            guidelines = (await context.insight.reflect(history)).guidelines
        context.archive.guidelines.record(
            *(
                GuidelineRecord(context.study_id, round_, i, g.insight, g.stage, g.text, g.structured)
                for i, g in enumerate(guidelines)
            )
        )
        texts = {f"guideline-{round_}-{i}": {"round": round_, "text": g.text} for i, g in enumerate(guidelines)}
        context.events("guideline", texts)
        # Run again after a crash, a later batch may be accepted already: it still has to run.
        later = sum(len(of) for r, of in context.journal().accepted_by_round.items() if r > round_)
        return history.trials_left + later

    async def propose(self, round_: int, attempt: int, quiet: int = 0) -> dict[str, Any]:
        """Ask for a batch and review it; or end the search where nothing that is left is expected to gain enough.

        Args:
            round_: of the search.
            attempt: 0 for the first batch of the round.
            quiet: rounds in a row before this one that began with too little to gain.

        Returns:
            ``{"accepted": in this round so far, "wanted": batch size, "usable": whether the proposer still answers,
            "quiet": as above with this round, "converged": whether to end}``.
        """
        context = self._context
        context.enter("propose", round_)
        journal = context.journal()
        before = len(journal.accepted_by_round.get(round_, ()))
        left = max(0, context.spec.budget.search.trials - len(journal.accepted))
        wanted = min(context.spec.proposer.batch, left + before)
        room = wanted - before
        usable = True
        suggestions: Suggestions | None = None
        if attempt == 0:
            quiet, suggestions = await self._convergence.looked_at(round_, room, quiet)
            if quiet >= QUIET_ROUNDS:
                return {"accepted": 0, "wanted": wanted, "usable": usable, "quiet": quiet, "converged": True}
        if room > 0 and not _reviewed(journal, round_, attempt):
            if suggestions is None:
                history = context.history(round_, journal)
                refused = [r for r in history.refused if r.round == round_]
                suggestions = await self._suggest(round_, attempt, history, room, refused)
            usable = bool(suggestions.proposals)
            self._review(round_, attempt, suggestions, room)
        accepted = self._accepted_in(round_)
        return {"accepted": accepted, "wanted": wanted, "usable": usable, "quiet": quiet, "converged": False}

    async def _suggest(
        self, round_: int, attempt: int, history: History, room: int, refused: Sequence[RefusedView]
    ) -> Suggestions:
        context = self._context
        if attempt >= MAX_ATTEMPTS or not self._llm_usable(round_):
            return _filling(await context.insight.propose(history, room, refused))
        context.accounts.at(round_, attempt)
        suggestions = await context.proposer.propose(history, room, refused)
        self._charge(f"propose-{round_}-{attempt}", suggestions.exchanges)
        return suggestions

    def _accepted_in(self, round_: int) -> int:
        return len(self._context.journal().accepted_by_round.get(round_, ()))

    def _llm_usable(self, round_: int) -> bool:
        """Whether the proposer should still be asked; one without an LLM always should."""
        answered = self._context.journal().answered
        recent = [answered[r] for r in sorted(answered) if r < round_][-MAX_LLM_FAILURES:]
        return len(recent) < MAX_LLM_FAILURES or any(recent)

    def _charge(self, entry: str, exchanges: Sequence[Exchange]) -> None:
        """Enter what the LLM of a proposer without accounts used; it has checked the budget before it called."""
        tokens = sum(e.prompt_tokens + e.completion_tokens for e in exchanges if not e.kept)
        if tokens:
            ledgers = self._context.archive.ledgers
            ledgers.reserve(self._context.study_id, "proposer", entry, "tokens", tokens, None)
            ledgers.settle(self._context.study_id, "proposer", entry, tokens)

    def _review(self, round_: int, attempt: int, suggestions: Suggestions, room: int) -> int:
        context = self._context
        taken = context.journal().taken
        verdicts = review(suggestions.proposals, context.space, taken, room, self._checks(suggestions))
        self._store_exchanges(round_, attempt, suggestions.exchanges)
        context.archive.proposals.record(
            *(self._record(round_, attempt, i, verdict) for i, verdict in enumerate(verdicts))
        )
        context.events(
            "proposal",
            {
                f"proposal-{round_}-{attempt}-{i}": {
                    "round": round_,
                    "origin": verdict.proposal.origin,
                    "allocation": str(verdict.allocation) if verdict.allocation else verdict.proposal.raw[:200],
                    "accepted": verdict.accepted,
                    "reason": verdict.reason or verdict.proposal.reason,
                }
                for i, verdict in enumerate(verdicts)
            },
        )
        return sum(v.accepted for v in verdicts)

    def _checks(self, suggestions: Suggestions) -> list[Check]:
        """What the study so far adds to review of an LLM's proposals: the search budget, and what is answered already.

        The insight policy's own proposals are never held against curves: its surrogate has every point of them, and
        what it proposes all the same it proposes for a reason that a curve does not show. Nor are they against the
        budget: who cannot take a hint gains nothing by a refusal, and reserving says which limit ends the search.
        """
        context = self._context
        if not any(p.origin == "agent" for p in suggestions.proposals):
            return []
        left, answered = context.budgets.left(context.journal().drift), context.answered()

        def check(proposal: Proposal, allocation: Allocation, accepted: Sequence[Allocation]) -> str:
            if proposal.origin != "agent":
                return ""
            return left.reason(allocation, accepted) or answered.reason(allocation)

        return [check]

    def _record(self, round_: int, attempt: int, position: int, verdict: Verdict) -> ProposalRecord:
        proposal = verdict.proposal
        return ProposalRecord(
            self._context.study_id,
            round_,
            attempt,
            position,
            verdict.allocation,
            proposal.origin,
            "accepted" if verdict.accepted else "refused",
            verdict.reason,
            proposal.reason,
            proposal.expected_score,
            reply=proposal.raw or None,
            call={"prompts": proposal.prompts} if proposal.prompts else {},
        )

    def _store_exchanges(self, round_: int, attempt: int, exchanges: Sequence[Exchange]) -> None:
        """Keep every LLM call word for word, as far as the proposer's accounts have not kept it yet."""
        self._context.archive.proposals.record(
            *(
                call_record(self._context.study_id, round_, attempt, i, exchange)
                for i, exchange in enumerate(exchanges)
                if not exchange.kept
            )
        )


def _reviewed(journal: Journal, round_: int, attempt: int) -> bool:
    """Whether this batch was stored already, by a run of the same step that a crash cut off."""
    return any(p.attempt == attempt and p.origin != CALL for p in journal.by_round.get(round_, ()))


def _outcome(results: Sequence[TrialResult]) -> dict[str, Any]:
    return {
        "allocations": [str(result.allocation) for result in results],
        "new_draws": sum(result.spend.new_draws for result in results),
        "reused_draws": sum(result.spend.reused_draws for result in results),
    }


def _filling(suggestions: Suggestions) -> Suggestions:
    """What the insight policy suggests in the proposer's place, marked as such."""
    return Suggestions(
        tuple(
            Proposal(p.allocation, "fill", f"insight policy fills in: {p.reason}", p.expected_score)
            for p in suggestions.proposals
        )
    )


def limit_of(error: BudgetExhausted) -> str:
    """The field of the search budget behind a refusal."""
    return next((field for ledger, field in LIMITS.items() if ledger == error.ledger), error.ledger)
