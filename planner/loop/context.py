"""Everything a running study works with, opened from its archive row."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property

from env.allocation import Allocation, StageSetting
from env.backends.pool import BackendPool, Backends
from env.costs import CostOptions
from env.errors import ApportionError
from env.execution import Environment, Progress
from env.spec import StudySpec
from env.tasks.data import Splits, load_splits
from planner.answered import Answered
from planner.archive import Archive, ProposalRecord, TrialRecord
from planner.history import Guideline, History, PastStudy
from planner.loop.accounts import StudyAccounts
from planner.loop.budgets import SearchBudgets
from planner.loop.constraints import feasible, measures_latency
from planner.loop.experience import past_tasks
from planner.loop.journal import CALL, Journal
from planner.loop.results import TrialResults
from planner.loop.warm_start import past_studies
from planner.proposers import Ablation, InsightProposer, Proposer, ProposerSetup, open_proposer
from planner.proposers.registry import may_ask_llm
from planner.space import SearchSpace

STOP = "stop"
"""Key of the event that says why a search ended."""

EVENT_SECONDS = 0.7
"""Progress is written at most this often."""

GUIDELINE_ROUNDS = 3
"""Rounds whose guidelines a proposer sees, the newest: each round writes them anew from all trials."""


class StudyCancelled(ApportionError):
    """Somebody asked the study to stop."""


class StudyContext:
    """A study's spec, space, data, backends and proposer, with reads and writes of its archive in the loop's terms."""

    def __init__(
        self,
        archive: Archive,
        study_id: str,
        environ: Mapping[str, str] | None = None,
        backends: Backends | None = None,
    ) -> None:
        """Open a study.

        Args:
            archive: holds the study.
            study_id: which.
            environ: where to look for the agent's LLM; the process's environment by default.
            backends: models to use instead of those of the spec.

        Raises:
            ApportionError: the study's data, checkpoints or proposer cannot be opened.
        """
        self.archive = archive
        self.study_id = study_id
        self.spec = StudySpec.model_validate(dict(archive.studies.get(study_id).spec))
        self.space = SearchSpace(self.spec)
        self.splits: Splits = load_splits(self.spec.data)
        self._pool = BackendPool(self.spec.pipeline.models, tenant=study_id)
        self.backends: Backends = backends or self._pool
        self.owns_backends = backends is None
        """Whether models are served as the spec says."""

        self.environment = Environment(
            self.spec.pipeline,
            self.spec.budget.plan.unit,
            archive.bank,
            self.backends,
            self.spec.seed,
            CostOptions.of(self.spec.budget.plan),
        )
        self.ablation = Ablation.of(self.spec.proposer.ablate)
        self.insight = InsightProposer(self.space, self.spec.seed, self.spec.proposer.batch, ablation=self.ablation)
        self.accounts = StudyAccounts(archive, study_id, self.spec.budget.proposer)
        self.results = TrialResults(archive, study_id)
        self.proposer = self._open_proposer(os.environ if environ is None else environ)
        self.budgets = SearchBudgets(self.spec, archive, study_id, self.backends, len(self.splits.search))
        self._journal = Journal(archive, study_id, self.feasible)
        self._feasible: dict[int, bool] = {}
        """By trial number; trials never change once recorded."""

        self._last_event = 0.0

    def _open_proposer(self, environ: Mapping[str, str]) -> Proposer:
        # Imported here: only studies with an LLM need its client.
        from planner.proposers.agent import resolve_llm

        kind = self.spec.proposer.kind
        setup = ProposerSetup(
            self.space,
            self.spec.seed,
            self.spec.proposer.batch,
            self.spec.description,
            resolve_llm(self.spec.proposer, environ) if may_ask_llm(kind) else None,
            self.proposer_tokens_left,
            self.ablation,
            lambda: past_tasks(self.archive, self.study_id),
            self.accounts,
        )
        return open_proposer(kind, setup)

    async def close(self) -> None:
        """Release backends and the proposer."""
        await self.proposer.close()
        await self._pool.close()

    def serve_as(self, model: str, variant: str) -> None:
        """See `BackendPool.serve_as`."""
        self._pool.serve_as(model, variant)

    # What the archive says ---------------------------------------------------------------------------------------

    def journal(self) -> Journal:
        """The study's trials and proposals, as the archive has them now."""
        return self._journal.refresh()

    def trials(self) -> list[TrialRecord]:
        """Trials on the search split, by number, without their curves."""
        return list(self.journal().trials)

    def calls(self) -> list[ProposalRecord]:
        """Every LLM call so far, in the order they were made."""
        return self.archive.proposals.list(self.study_id, origin=CALL)

    def accepted(self) -> list[ProposalRecord]:
        """Accepted proposals in order; the position in this list, from 1, is the trial's number."""
        return list(self.journal().accepted)

    def history(self, round_: int, journal: Journal | None = None) -> History:
        """What a proposer may see; by this journal where one was just read."""
        journal = self.journal() if journal is None else journal
        guidelines = [
            Guideline(g.round, g.insight, g.text, g.stage, g.structured)
            for g in self.archive.guidelines.list(self.study_id, newest=GUIDELINE_ROUNDS)
        ]
        trials = tuple(journal.views)
        return History(
            round_,
            trials,
            tuple(journal.refused),
            tuple(guidelines),
            self._left(journal),
            journal.pending(self.results.problem),
            self.results.differences(trials) if self.proposer.kind == "agent" else {},
            self.past,
            frozenset(journal.taken),
        )

    @cached_property
    def past(self) -> tuple[PastStudy, ...]:
        """Earlier studies that this one may learn from; the same in every run of it."""
        return past_studies(self.archive, self.study_id, self.spec) if self.spec.proposer.warm_start else ()

    def answered(self) -> Answered:
        """Which allocations need no trial, by what has run."""
        return Answered(self.space, self.journal().views, self.results)

    def feasible(self, trial: TrialRecord) -> bool:
        """Whether a search trial meets the constraints that only a run can judge."""
        if trial.trial_no not in self._feasible:
            self._feasible[trial.trial_no] = self._meets(trial)
        return self._feasible[trial.trial_no]

    def _meets(self, trial: TrialRecord) -> bool:
        constraints = self.spec.constraints
        timed = self.archive.trials.evidence(self.study_id, trial.trial_no) if measures_latency(constraints) else None
        return feasible(constraints, self.space, trial, timed)

    def taken(self) -> set[Allocation]:
        """Allocations that ran or are accepted."""
        return set(self.journal().taken)

    def trials_left(self) -> int:
        """Trials the search budget still allows."""
        return self._left(self.journal())

    def _left(self, journal: Journal) -> int:
        return max(0, self.spec.budget.search.trials - len(journal.accepted))

    def proposer_tokens_left(self) -> int:
        """Tokens the agent's LLM may still use."""
        used = self.archive.ledgers.usage(self.study_id, "proposer").total
        return max(0, self.spec.budget.proposer.tokens - int(used))

    # Progress ----------------------------------------------------------------------------------------------------

    def enter(self, phase: str, round_: int) -> None:
        """Say which phase of the loop begins; stop here where a cancel was asked for.

        Raises:
            StudyCancelled: somebody asked.
        """
        self.check_cancel()
        self.archive.studies.set_progress(self.study_id, phase, round_)
        self.event("phase", {"phase": phase, "round": round_})

    def event(self, kind: str, payload: Mapping[str, object], key: str | None = None) -> None:
        """Write an event for whoever watches."""
        self.archive.events.append(self.study_id, kind, payload, key)

    def events(self, kind: str, payloads: Mapping[str, Mapping[str, object]]) -> None:
        """Write several events of a kind, by key."""
        self.archive.events.append_all(self.study_id, ((kind, payload, key) for key, payload in payloads.items()))

    def stop(self, reason: str, message: str, **details: object) -> None:
        """Say why the search ends; the first reason stays.

        Args:
            reason: the limit's name, or what else ended it.
            message: for people, with how much was left.
            details: numbers behind it.
        """
        self.event("stop", {"reason": reason, "message": message, **details}, STOP)

    @property
    def unused(self) -> str:
        """Trials of the budget that were not evaluated, for people."""
        most = self.spec.budget.search.trials
        run = sum(trial.status != "cut" for trial in self.journal().trials)
        return f"{most - run:,} of {most:,} trials unused"

    @property
    def stopped(self) -> str:
        """Why the search ended, for people; empty while it runs."""
        found = self.archive.events.named(self.study_id, STOP)
        return "" if found is None else str(found.payload["message"])

    def check_cancel(self) -> None:
        """Stop where a cancel was asked for.

        Raises:
            StudyCancelled: somebody asked.
        """
        if self.archive.studies.cancel_requested(self.study_id):
            raise StudyCancelled(f"study {self.study_id} was cancelled; what it drew is kept")

    def progress_sink(self, round_: int, what: str) -> Callable[[Progress], None]:
        """Progress of a batch as throttled events; also the place where a running batch notices a cancel."""

        def sink(progress: Progress) -> None:
            now = time.monotonic()
            if now - self._last_event < EVENT_SECONDS and progress.done < progress.total:
                return
            self._last_event = now
            self.check_cancel()
            remaining = progress.remaining_seconds
            self.event(
                "progress",
                {
                    "round": round_,
                    "what": what,
                    "stage": progress.stage,
                    "model": progress.model,
                    "done": progress.done,
                    "total": progress.total,
                    "draws_per_second": round(progress.draw_rate, 1),
                    "remaining_seconds": None if remaining is None else round(remaining, 1),
                },
            )

        return sink


def reference_allocation(space: SearchSpace) -> Allocation | None:
    """What one would do without a planner: the largest model that every stage may use and the budget buys, once."""
    stages = space.pipeline.stages
    common = [m for m in space.pipeline.models if all(m in s.models and 1 in s.samples.values() for s in stages)]
    for model in sorted(common, key=lambda m: -space.cost.parameters[m]):
        allocation = Allocation.of({s.name: StageSetting(model, s.strategies[0], 1) for s in stages})
        if not space.faults(allocation):
            return allocation
    return None
