"""One search on one problem: the study's loop without its archive, every trial held against the known truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from env.allocation import Allocation
from planner.bench.problem import EVERYTHING, Conditions, Problem
from planner.history import Guideline, History, PendingView, RefusedView, TrialView
from planner.loop.phases import MAX_ATTEMPTS
from planner.proposers import Exchange, Proposer, Suggestions
from planner.review import review

MAX_EMPTY_ROUNDS = 3
"""Rounds in a row without a new trial after which the search is over: nothing is left to propose."""


@dataclass(frozen=True)
class Step:
    """One trial of a rehearsal."""

    allocation: Allocation
    truth: float
    """True score."""

    observed: float
    """What the trial showed."""

    expected: float | None
    """What the proposer expected, where it said so."""

    origin: str
    """Who suggested it."""

    new_draws: int
    tokens: int


@dataclass(frozen=True)
class Rehearsal:
    """A search that has ended."""

    problem: str
    proposer: str
    seed: int
    optimum: float
    steps: tuple[Step, ...]
    refused: int
    """Proposals that review refused."""

    seconds: float
    """Wall time, the problem's own included."""

    llm_tokens: int = 0


async def rehearse(
    problem: Problem,
    proposer: Proposer,
    name: str,
    fill: Proposer,
    seed: int,
    trials: int,
    batch: int,
    conditions: Conditions = EVERYTHING,
) -> Rehearsal:
    """Search a problem as a study does: initial trials, then reflect, propose, review and run until trials end.

    A round whose proposals are refused twice is filled by `fill`, which a study does with the insight policy.

    Args:
        problem: what is searched.
        proposer: who searches; closed by the caller.
        name: of the entrant, for the record.
        fill: fills a round that the proposer could not.
        seed: of the problem's draws.
        trials: how many may run.
        batch: trials a round, after the initial ones.
        conditions: what the search may use.
    """
    search = _Search(problem, seed, trials, conditions)
    started = time.monotonic()
    suggestions = await proposer.initial(search.history(0))
    search.take(suggestions, trials)
    search.run(0)
    empty = 0
    round_ = 0
    while len(search.views) < trials and empty < MAX_EMPTY_ROUNDS:
        reflection = await proposer.reflect(search.history(round_))
        search.guidelines.extend(reflection.guidelines)
        search.charge(reflection.exchanges)
        round_ += 1
        wanted = min(batch, trials - len(search.views))
        for attempt in range(MAX_ATTEMPTS + 1):
            room = wanted - len(search.waiting)
            if room < 1:
                break
            asked = proposer if attempt < MAX_ATTEMPTS else fill
            refused = [r for r in search.refused if r.round == round_]
            search.take(await asked.propose(search.history(round_), room, refused), room)
        empty = 0 if search.waiting else empty + 1
        search.run(round_)
    return Rehearsal(
        problem.name,
        name,
        seed,
        problem.optimum,
        tuple(search.steps),
        len(search.refused),
        time.monotonic() - started,
        search.llm_tokens,
    )


class _Search:
    """What a rehearsal keeps in place of the archive."""

    def __init__(self, problem: Problem, seed: int, trials: int, conditions: Conditions) -> None:
        self._problem = problem
        self._evaluator = problem.evaluator(seed, conditions)
        self._trials = trials
        self._round = 0
        self.views: list[TrialView] = []
        self.steps: list[Step] = []
        self.refused: list[RefusedView] = []
        self.guidelines: list[Guideline] = []
        self.waiting: list[tuple[Allocation, str, float | None]] = []
        self.llm_tokens = 0

    def history(self, round_: int) -> History:
        self._round = round_
        left = self._trials - len(self.views) - len(self.waiting)
        pending = tuple(PendingView(allocation, origin) for allocation, origin, _ in self.waiting)
        return History(round_, tuple(self.views), tuple(self.refused), tuple(self.guidelines), left, pending)

    def take(self, suggestions: Suggestions, room: int) -> None:
        """Review what was suggested."""
        self.charge(suggestions.exchanges)
        taken = {v.allocation for v in self.views} | {a for a, _, _ in self.waiting}
        for verdict in review(suggestions.proposals, self._problem.space, taken, room):
            proposal = verdict.proposal
            if verdict.accepted and verdict.allocation is not None:
                self.waiting.append((verdict.allocation, proposal.origin, proposal.expected_score))
            else:
                raw = proposal.raw or str(proposal.allocation)
                self.refused.append(RefusedView(self._round, verdict.allocation, raw, verdict.reason))

    def charge(self, exchanges: Sequence[Exchange]) -> None:
        self.llm_tokens += sum(e.prompt_tokens + e.completion_tokens for e in exchanges)

    def run(self, round_: int) -> None:
        """Run what waits."""
        for allocation, origin, expected in self.waiting:
            outcome = self._evaluator.run(allocation, len(self.views) + 1, round_)
            view = replace(outcome.view, origin=origin, expected_score=expected)
            self.views.append(view)
            truth = self._problem.truth(allocation)
            self.steps.append(Step(allocation, truth, view.score, expected, origin, view.new_draws, outcome.tokens))
        self.waiting.clear()
