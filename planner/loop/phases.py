"""The phases of the loop as idempotent steps: each reads its state from the archive and leaves its result there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from env.allocation import Allocation
from planner.archive import BudgetExhausted, GuidelineRecord, ProposalRecord
from planner.history import Guideline, History, RefusedView
from planner.loop.accounts import REFLECTING, call_record
from planner.loop.context import StudyContext
from planner.loop.engines import settle_engines
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

    async def initialise(self) -> int:
        """Review and store the initial trials; returns how many were accepted."""
        context = self._context
        context.enter("initialise", 0)
        context.archive.studies.set_proposer(context.study_id, context.proposer.kind)
        if not self._reviewed(0, 0):
            suggestions = await context.proposer.initial(context.history(0))
            self._charge("initial", suggestions.exchanges)
            self._review(0, 0, suggestions, context.trials_left())
        if not self._accepted_in(0) and not self._reviewed(0, MAX_ATTEMPTS):
            # An LLM that is down when a study begins must not end it.
            filled = await context.insight.initial(context.history(0))
            self._review(0, MAX_ATTEMPTS, _filling(filled), context.trials_left())
        return self._accepted_in(0)

    async def execute(self, round_: int) -> int:
        """Run the accepted proposals of a round that have no trial yet, together; returns how many ran."""
        context = self._context
        context.enter("execute", round_)
        done = {t.trial_no for t in context.trials()}
        numbered = [(i, p.allocation) for i, p in enumerate(context.accepted(), 1) if p.round == round_]
        # All of the round or none: a draw belongs to the first allocation of the batch that asked for it, so a batch
        # cut off while its trials were being recorded must be counted again as a whole.
        unfinished = any(i not in done for i, _ in numbered)
        waiting = [(i, a) for i, a in numbered if a is not None and unfinished]
        affordable = self._reserve(round_, waiting)
        if not affordable:
            return 0
        await settle_engines(context)
        origin = f"{context.study_id}/round-{round_}"
        results = await context.environment.run_batch(
            [a for _, a in affordable],
            context.splits.search,
            origin,
            context.progress_sink(round_, f"round {round_}: {len(affordable)} trials"),
        )
        for (number, _), result in zip(affordable, results, strict=True):
            trial = context.archive.trials.record(
                context.study_id, number, "search", round_, result, context.space.unit
            )
            context.archive.ledgers.settle(context.study_id, "search", f"trial-{number}", result.spend.new_draws)
            context.event(
                "trial",
                {
                    "trial_no": number,
                    "round": round_,
                    "allocation": str(trial.allocation),
                    "score": trial.score,
                    "cost": trial.predicted_cost,
                    "new_draws": trial.spend.new_draws,
                    "failed": trial.failed,
                },
                f"trial-{number}",
            )
        return len(affordable)

    def _reserve(self, round_: int, waiting: Sequence[tuple[int, Allocation]]) -> list[tuple[int, Allocation]]:
        """Reserve the most draws each trial can need; trials the draw budget cannot cover do not run."""
        context = self._context
        limit = context.spec.budget.search.draws
        affordable: list[tuple[int, Allocation]] = []
        for number, allocation in waiting:
            most = context.space.most_draws(allocation) * len(context.splits.search)
            try:
                context.archive.ledgers.reserve(context.study_id, "search", f"trial-{number}", "draws", most, limit)
            except BudgetExhausted as error:
                context.event("budget", {"round": round_, "trial_no": number, "message": str(error)}, f"no-{number}")
                break
            affordable.append((number, allocation))
        return affordable

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
        for i, guideline in enumerate(guidelines):
            context.event("guideline", {"round": round_, "text": guideline.text}, f"guideline-{round_}-{i}")
        return context.trials_left()

    async def propose(self, round_: int, attempt: int) -> dict[str, Any]:
        """Ask for a batch and review it.

        Returns:
            ``{"accepted": in this round so far, "wanted": batch size, "usable": whether the proposer still answers}``.
        """
        context = self._context
        context.enter("propose", round_)
        wanted = min(context.spec.proposer.batch, context.trials_left() + self._accepted_in(round_))
        room = wanted - self._accepted_in(round_)
        usable = True
        if room > 0 and not self._reviewed(round_, attempt):
            history = context.history(round_)
            refused = [r for r in history.refused if r.round == round_]
            suggestions = await self._suggest(round_, attempt, history, room, refused)
            usable = bool(suggestions.proposals)
            self._review(round_, attempt, suggestions, room)
        return {"accepted": self._accepted_in(round_), "wanted": wanted, "usable": usable}

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

    def _reviewed(self, round_: int, attempt: int) -> bool:
        """Whether this batch was stored already, by a run of the same step that a crash cut off."""
        return any((p.round, p.attempt) == (round_, attempt) for p in self._context.proposals())

    def _accepted_in(self, round_: int) -> int:
        return sum(p.round == round_ for p in self._context.accepted())

    def _llm_usable(self, round_: int) -> bool:
        """Whether the proposer should still be asked; one without an LLM always should."""
        calls = [p for p in self._context.calls() if p.round < round_]
        answered: dict[int, bool] = {}
        for round_asked in sorted({p.round for p in calls}):
            mine = [p for p in calls if p.round == round_asked]
            # A round in which it was asked for proposals is judged by those; in others it had no share of the batch.
            asked = [p for p in mine if p.attempt != REFLECTING] or mine
            answered[round_asked] = any(p.verdict == "accepted" for p in asked)
        recent = list(answered.values())[-MAX_LLM_FAILURES:]
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
        verdicts = review(suggestions.proposals, context.space, context.taken(), room, self._checks(suggestions))
        self._store_exchanges(round_, attempt, suggestions.exchanges)
        context.archive.proposals.record(
            *(self._record(round_, attempt, i, verdict) for i, verdict in enumerate(verdicts))
        )
        for i, verdict in enumerate(verdicts):
            context.event(
                "proposal",
                {
                    "round": round_,
                    "origin": verdict.proposal.origin,
                    "allocation": str(verdict.allocation) if verdict.allocation else verdict.proposal.raw[:200],
                    "accepted": verdict.accepted,
                    "reason": verdict.reason or verdict.proposal.reason,
                },
                f"proposal-{round_}-{attempt}-{i}",
            )
        return sum(v.accepted for v in verdicts)

    def _checks(self, suggestions: Suggestions) -> list[Check]:
        """What the study so far adds to review: the search budget, and for the LLM what is answered already.

        The insight policy's own proposals are never held against curves: its surrogate has every point of them, and
        what it proposes all the same it proposes for a reason that a curve does not show.
        """
        context = self._context
        checks: list[Check] = [search_budget_check(context)] if context.spec.budget.search.draws is not None else []
        if any(p.origin == "agent" for p in suggestions.proposals):
            answered = context.answered()
            checks.append(lambda p, allocation, _: answered.reason(allocation) if p.origin == "agent" else "")
        return checks

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


def search_budget_check(context: StudyContext) -> Check:
    """Refuses what the draw budget of the search cannot cover, with the numbers."""
    limit = context.spec.budget.search.draws
    used = context.archive.ledgers.usage(context.study_id, "search").total
    examples = len(context.splits.search)

    def check(_: Proposal, allocation: Allocation, accepted: Sequence[Allocation]) -> str:
        left = (limit or 0) - used - sum(context.space.most_draws(a) * examples for a in accepted)
        need = context.space.most_draws(allocation) * examples
        if limit is None or need <= left:
            return ""
        return (
            f"over the search budget: the trial may need {need:,} draws ({examples} examples), {max(0, left):,.0f} of "
            f"{limit:,} are left"
        )

    return check


def _filling(suggestions: Suggestions) -> Suggestions:
    """What the insight policy suggests in the proposer's place, marked as such."""
    return Suggestions(
        tuple(
            Proposal(p.allocation, "fill", f"insight policy fills in: {p.reason}", p.expected_score)
            for p in suggestions.proposals
        )
    )
